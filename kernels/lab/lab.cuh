// What the variants of the decode loop share; ../include/decode.cuh has the rest.
//
//   // in flight: KERNELS  TILES  TILES MEANWHILE  SHARED
//
// in a source tells scripts/kernel-report how many tiles a warp has asked for at most, how many of them are still on their
// way while it multiplies, and the bytes of dynamic shared memory that a launch asks for.
#pragma once
#include "decode.cuh"
