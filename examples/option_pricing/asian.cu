// An Asian call by Monte Carlo: it pays what the mean price over a year is above the strike. Beside it, on the same paths,
// a European call, which pays by the last price and whose value is known (Black and Scholes).
//
// The random numbers are Philox4x32-10's (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC
// 2011): a function of key and counter, without a state. So a path is the same path, whichever peer follows it.

__device__ uint4 philox(uint4 counter, unsigned int key0, unsigned int key1) {
    for (int round = 0; round < 10; ++round) {
        unsigned int high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
        unsigned int high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high1 ^ counter.y ^ key0, low1, high0 ^ counter.w ^ key1, low0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

__device__ double2 normals(unsigned int first, unsigned int second) {  // Box and Muller
    double radius = sqrt(-2 * log((first + 0.5) / 4294967296.0)), angle = second * (6.283185307179586 / 4294967296.0);
    return make_double2(radius * cos(angle), radius * sin(angle));
}

extern "C" __global__ void simulate(double2* payoff,             // of each path of this task: Asian, European
                                    int first, int paths,        // the number of its first path, and how many it has
                                    unsigned int seed, int fours,  // a year has 4 * fours steps
                                    double spot, double strike, double rate, double volatility) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= paths) return;
    double dt = 1.0 / (4 * fours), growth = (rate - volatility * volatility / 2) * dt, shake = volatility * sqrt(dt);
    double way = 0, sum = 0;                                     // the logarithm of the price over spot; prices so far
    for (int four = 0; four < fours; ++four) {
        uint4 words = philox(make_uint4(first + i, four, 0, 0), seed, 0);
        double2 a = normals(words.x, words.y), b = normals(words.z, words.w);
        way += growth + shake * a.x;
        sum += exp(way);
        way += growth + shake * a.y;
        sum += exp(way);
        way += growth + shake * b.x;
        sum += exp(way);
        way += growth + shake * b.y;
        sum += exp(way);
    }
    double today = exp(-rate);                                   // what a payment in a year is worth
    payoff[i].x = today * fmax(spot * sum / (4 * fours) - strike, 0.0);
    payoff[i].y = today * fmax(spot * exp(way) - strike, 0.0);
}

extern "C" __global__ void add_up(const double2* payoff, int paths, double* sums) {  // one block of 256: a fixed order
    __shared__ double part[256][4];
    int me = threadIdx.x;
    for (int c = 0; c < 4; ++c) part[me][c] = 0;
    for (int i = me; i < paths; i += 256) {
        double2 p = payoff[i];
        part[me][0] += p.x;
        part[me][1] += p.x * p.x;
        part[me][2] += p.y;
        part[me][3] += p.y * p.y;
    }
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (me < half)
            for (int c = 0; c < 4; ++c) part[me][c] += part[me + half][c];
    }
    __syncthreads();
    if (me < 4) sums[me] = part[0][me];
}
