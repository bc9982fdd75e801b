// Arrays of objects with constructors, as locals and as members; constructors of members.
struct Cell {
    int value, weight;
    __device__ Cell(int v = 3) : value(v), weight(v * 2) {}
    __device__ Cell& operator+=(const Cell& o) { value += o.value; weight += o.weight; return *this; }
};
struct Board {
    Cell cells[2][2];
    int marks[3];
    float rest = 0.5f;
    __device__ Board(int m) : marks{m, m + 1} { cells[1][0] += Cell(m); }
};
template <class T, int N> struct Stack {
    T items[N];
    int top = 0;
    __device__ void push(const T& item) { items[top++] = item; }
    __device__ T pop() { return items[--top]; }
};
__global__ void object_arrays(const int* x, int* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Cell row[3], named[2] = {Cell(x[i]), 9};
    row[1] += named[0];
    Board board(x[i]);
    Stack<Cell, 4> stack;
    for (int k = 0; k < 4; ++k) stack.push(Cell(k + x[i]));
    Cell last = stack.pop();
    last += stack.pop();
    y[i] = row[0].value + row[1].weight * 10 + named[1].weight * 100 + board.cells[1][0].value + board.cells[1][1].weight +
           board.marks[1] + board.marks[2] + last.value * 1000 + (board.rest == 0.5f);
}
