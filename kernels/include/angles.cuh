// Sine and cosine in double precision with one order of operations, so that they have the same bits everywhere. Their
// error is some units in the last place of a double: rounded to single they are the nearest but for one value in 10^8.
#pragma once
#include "platform.cuh"

struct SineCosine {
    double sine, cosine;
};

// Of an angle in radians, |angle| < 2^30: the rest after multiples of pi/2, which is at most pi/4, then Taylor's series.
DEVICE SineCosine sine_cosine(double angle) {
    const double quarters = rint(angle * 0.63661977236758134308);
    double r = fma(quarters, -1.57079632679489655800, angle); // pi/2 as a double
    r = fma(quarters, -6.12323399573676603587e-17, r);        // what it lacks of pi/2
    const double square = r * r;
    double sine = -1.0 / 1307674368000.0;
    sine = fma(sine, square, 1.0 / 6227020800.0);
    sine = fma(sine, square, -1.0 / 39916800.0);
    sine = fma(sine, square, 1.0 / 362880.0);
    sine = fma(sine, square, -1.0 / 5040.0);
    sine = fma(sine, square, 1.0 / 120.0);
    sine = fma(sine, square, -1.0 / 6.0);
    sine = fma(sine * square, r, r);
    double cosine = 1.0 / 20922789888000.0;
    cosine = fma(cosine, square, -1.0 / 87178291200.0);
    cosine = fma(cosine, square, 1.0 / 479001600.0);
    cosine = fma(cosine, square, -1.0 / 3628800.0);
    cosine = fma(cosine, square, 1.0 / 40320.0);
    cosine = fma(cosine, square, -1.0 / 720.0);
    cosine = fma(cosine, square, 1.0 / 24.0);
    cosine = fma(cosine, square, -1.0 / 2.0);
    cosine = fma(cosine, square, 1.0);
    const int quadrant = (int)quarters & 3;
    const bool swapped = quadrant & 1;
    const double s = swapped ? cosine : sine, c = swapped ? sine : cosine;
    return {quadrant & 2 ? -s : s, (quadrant + 1) & 2 ? -c : c};
}
