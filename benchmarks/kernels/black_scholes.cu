// European call prices (Black and Scholes, 1973); each option's terms come from its number, by three rounds of a
// counter-based hash (the finaliser of MurmurHash3), so that no input travels. One thread an option.

__device__ unsigned int mixed(unsigned int h) {
    h ^= h >> 16; h *= 0x85ebca6bu;
    h ^= h >> 13; h *= 0xc2b2ae35u;
    return h ^ (h >> 16);
}

__device__ float uniform(unsigned int option, unsigned int stream, float low, float high) {
    unsigned int h = mixed(option * 3u + stream + 0x9e3779b9u);
    return low + (high - low) * ((float)(h >> 8) * (1.0f / 16777216.0f));
}

// The cumulative normal distribution: Abramowitz and Stegun (1964), 26.2.17.
__device__ float normal_cdf(float d) {
    float k = 1.0f / (1.0f + 0.2316419f * fabsf(d));
    float tail = 0.39894228f * expf(-0.5f * d * d) *
        (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
    return d > 0.0f ? 1.0f - tail : tail;
}

extern "C" __global__ void black_scholes(float* call, float rate, float volatility, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float spot = uniform(i, 0, 10.0f, 100.0f), strike = uniform(i, 1, 10.0f, 100.0f);
    float years = uniform(i, 2, 0.1f, 2.0f);
    float root = sqrtf(years);
    float d1 = (logf(spot / strike) + (rate + 0.5f * volatility * volatility) * years) / (volatility * root);
    float d2 = d1 - volatility * root;
    call[i] = spot * normal_cdf(d1) - strike * expf(-rate * years) * normal_cdf(d2);
}
