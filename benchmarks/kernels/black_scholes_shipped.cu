// European call prices (Black and Scholes, 1973) of options that are sent. One thread an option.

// The cumulative normal distribution: Abramowitz and Stegun (1964), 26.2.17.
__device__ float normal_cdf(float d) {
    float k = 1.0f / (1.0f + 0.2316419f * fabsf(d));
    float tail = 0.39894228f * expf(-0.5f * d * d) *
        (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
    return d > 0.0f ? 1.0f - tail : tail;
}

extern "C" __global__ void black_scholes(const float* spots, const float* strikes, const float* times, float* call,
                                         float rate, float volatility, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float spot = spots[i], strike = strikes[i], years = times[i];
    float root = sqrtf(years);
    float d1 = (logf(spot / strike) + (rate + 0.5f * volatility * volatility) * years) / (volatility * root);
    float d2 = d1 - volatility * root;
    call[i] = spot * normal_cdf(d1) - strike * expf(-rate * years) * normal_cdf(d2);
}
