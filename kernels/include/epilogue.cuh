// What a matmul does with its finished sums.
#pragma once
#include "numeric.cuh"
#include "params.cuh"

// A finished sum as a number of the output: times the row's factor (planes.cuh), and the bias where there is one.
DEVICE float finished(float sum, float factor, const float *bias, uint32_t row) {
    const float value = sum * factor;
    return bias == nullptr ? value : value + bias[row];
}

// One element of the output: `first` of the first matrix and, with EPILOGUE_SWIGLU, `second` of the second.
DEVICE void finish(uint32_t epilogue, float &out, float first, float second) {
    if (epilogue == EPILOGUE_SWIGLU) out = silu(first) * second;
    else if (epilogue == EPILOGUE_ADD) out += first;
    else if (epilogue == EPILOGUE_GATE) out = silu(out) * first;
    else out = first;
}
