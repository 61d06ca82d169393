// What a matmul does with its finished sums.
#pragma once
#include "numeric.cuh"
#include "params.cuh"

// One element of the output by another epilogue than the launch's own: `first` of the first matrix and, with
// EPILOGUE_SWIGLU, `second` of the second.
DEVICE void finish_as(uint32_t epilogue, const MatmulParams &p, uint32_t row, uint32_t token, float first, float second) {
    float *out = p.out + (uint64_t)token * p.stride + row;
    if (p.bias != nullptr) first += p.bias[row];
    if (epilogue == EPILOGUE_SWIGLU) *out = silu(first) * second;
    else if (epilogue == EPILOGUE_ADD) *out += first;
    else if (epilogue == EPILOGUE_GATE) *out = silu(*out) * first;
    else *out = first;
}

DEVICE void finish(const MatmulParams &p, uint32_t row, uint32_t token, float first, float second) {
    finish_as(p.epilogue, p, row, token, first, second);
}
