// One gradient step of P policies on the CPU: gather, forward, loss, backward, clipped Adam.
//
// It computes what hepo_isaac/agents/loss.py, network.py and optimizer.py compute with torch, in blocks of rows that
// stay in a core's cache. It uses no torch and no BLAS: a plain C function, called through ctypes (fused.py).
// Compiled without -ffast-math: NaN and infinity propagate as they do there. The order of every sum is fixed by the
// sizes alone, so that results do not depend on the number of threads.

#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int PAD = 16;      // columns of a padded matrix are a multiple of it
constexpr int BLOCK = 120;   // rows of one block
constexpr int GROUPS = 4;    // gradients that the blocks of a policy are summed into, added up in order at the end
constexpr int STATISTICS = 7;
constexpr double LEAST_WORK = 2e7;  // about 0.2 ms of one core
// VEC: floats of a register (a wider vector type than the machine's goes through memory, twenty times as slow).
// TILE: rows of a tile of the matrix product, two registers wide: 24 accumulators of 32 registers, or 12 of 16.
#ifdef __AVX512F__
constexpr int VEC = 16, TILE = 12;
#else
constexpr int VEC = 8, TILE = 6;
#endif
typedef float Vec __attribute__((vector_size(4 * VEC), aligned(4)));

int padded(int n) { return (n + PAD - 1) / PAD * PAD; }

// ---- matrix products ------------------------------------------------------------------------------------------

// c (R, NV vectors) = or += a b. Element (i, k) of a is a[i * row + k * column].
template <int R, int NV>
void tile(int inner, const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, float* c, int64_t ldc,
          bool add) {
  Vec sum[R][NV];
  for (int i = 0; i < R; i++)
    for (int v = 0; v < NV; v++) sum[i][v] = add ? *(const Vec*)(c + i * ldc + v * VEC) : Vec{};
  for (int k = 0; k < inner; k++) {
    Vec right[NV];
    for (int v = 0; v < NV; v++) right[v] = *(const Vec*)(b + k * ldb + v * VEC);
    for (int i = 0; i < R; i++) {
      const float left = a[i * row + k * column];
      for (int v = 0; v < NV; v++) sum[i][v] += left * right[v];
    }
  }
  for (int i = 0; i < R; i++)
    for (int v = 0; v < NV; v++) *(Vec*)(c + i * ldc + v * VEC) = sum[i][v];
}

// What is left of the rows after whole tiles, as one lower tile.
template <int R, int NV>
void lower_tile(int rows, int inner, const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, float* c,
                int64_t ldc, bool add) {
  if (rows == R)
    tile<R, NV>(inner, a, row, column, b, ldb, c, ldc, add);
  else if constexpr (R > 1)
    lower_tile<R - 1, NV>(rows, inner, a, row, column, b, ldb, c, ldc, add);
}

template <int NV>
void column_of_tiles(int rows, int inner, const float* a, int64_t row, int64_t column, const float* b, int64_t ldb,
                     float* c, int64_t ldc, bool add) {
  int i = 0;
  for (; i + TILE <= rows; i += TILE) tile<TILE, NV>(inner, a + i * row, row, column, b, ldb, c + i * ldc, ldc, add);
  if (i < rows) lower_tile<TILE - 1, NV>(rows - i, inner, a + i * row, row, column, b, ldb, c + i * ldc, ldc, add);
}

// c (rows, columns) = or += a (rows, inner) b (inner, columns); columns is a multiple of PAD.
void product(int rows, int columns, int inner, const float* a, int64_t row, int64_t column, const float* b,
             int64_t ldb, float* c, int64_t ldc, bool add) {
  int j = 0;
  for (; j + 2 * VEC <= columns; j += 2 * VEC)
    column_of_tiles<2>(rows, inner, a, row, column, b + j, ldb, c + j, ldc, add);
  if (j < columns) column_of_tiles<1>(rows, inner, a, row, column, b + j, ldb, c + j, ldc, add);
}

// ---- activations ----------------------------------------------------------------------------------------------

// (exp(r) - 1 - r) / r^2 for |r| <= ln 2 / 2.
inline float polynomial(float r) {
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  return p * r + 5.0000001201e-1f;
}

// exp for x <= 88, to 2 units in the last place; without a branch, so that loops over it become vector code.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = __builtin_rintf(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  union { int32_t i; float f; } scale;
  scale.i = ((int32_t)n + 127) << 23;
  return ((polynomial(r) * r * r + r) + 1.0f) * scale.f;
}

// exp(x) - 1 for x <= 0 without loss near 0: 2^n (exp(r) - 1) + (2^n - 1).
inline float exponential_minus_1(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = __builtin_rintf(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  union { int32_t i; float f; } scale;
  scale.i = ((int32_t)n + 127) << 23;
  return scale.f * (polynomial(r) * r * r + r) + (scale.f - 1.0f);
}

inline float hyperbolic_tangent(float x) {
  const float size = x < 0 ? -x : x, s = x * x;
  const float near = x + x * s * (-3.33332819422e-1f + s * (1.33314422036e-1f + s * (-5.37397155531e-2f +
                     s * (2.06390887954e-2f + s * -5.70498872745e-3f))));
  const float e = exponential(-2.0f * size);
  const float far = (1.0f - e) / (1.0f + e);
  const float signed_far = x < 0 ? -far : far;
  return size < 0.625f ? near : (x != x ? x : signed_far);
}

constexpr float SELU_SCALE = 1.0507009873554804934193349852946f, SELU_ALPHA = 1.6732632423543772848170429916717f;
enum Activation { ELU, RELU, TANH, SELU };

// y = activation(y + bias), for the rows of one layer.
void activate(Activation kind, int rows, int columns, const float* bias, float* y, int64_t ld) {
  for (int i = 0; i < rows; i++) {
    float* row = y + i * ld;
    switch (kind) {
      case ELU:
        for (int j = 0; j < columns; j++) {
          const float x = row[j] + bias[j];
          const float low = exponential_minus_1(x > 0 ? 0.0f : x);
          row[j] = x > 0 ? x : low;
        }
        break;
      case RELU:
        for (int j = 0; j < columns; j++) {
          const float x = row[j] + bias[j];
          row[j] = x < 0 ? 0.0f : x;
        }
        break;
      case TANH:
        for (int j = 0; j < columns; j++) row[j] = hyperbolic_tangent(row[j] + bias[j]);
        break;
      case SELU:
        for (int j = 0; j < columns; j++) {
          const float x = row[j] + bias[j];
          const float low = SELU_ALPHA * exponential_minus_1(x > 0 ? 0.0f : x);
          row[j] = SELU_SCALE * (x > 0 ? x : low);
        }
        break;
    }
  }
}

// g *= activation'(.), told from its result h.
void derive(Activation kind, int rows, int columns, const float* h, float* g, int64_t ld) {
  for (int i = 0; i < rows; i++) {
    const float* y = h + i * ld;
    float* d = g + i * ld;
    switch (kind) {
      case ELU:
        for (int j = 0; j < columns; j++) d[j] *= y[j] > 0 ? 1.0f : y[j] + 1.0f;
        break;
      case RELU:
        for (int j = 0; j < columns; j++) d[j] = y[j] <= 0 ? 0.0f : d[j];
        break;
      case TANH:
        for (int j = 0; j < columns; j++) d[j] *= 1.0f - y[j] * y[j];
        break;
      case SELU:
        for (int j = 0; j < columns; j++) d[j] *= y[j] > 0 ? SELU_SCALE : y[j] + SELU_SCALE * SELU_ALPHA;
        break;
    }
  }
}

// ---- threads --------------------------------------------------------------------------------------------------

class Pool {  // waits without spinning: the physics' threads have the cores while it does
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    start_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  // ``work``: operations of all jobs together; where they are few, waking a thread takes longer than doing its part.
  void run(int count, double work, const std::function<void(int)>& job) {
    if (workers_.empty() || count < 2 || work < LEAST_WORK) {
      for (int i = 0; i < count; i++) job(i);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job, next_ = 0, count_ = count, left_ = count;
    }
    start_.notify_all();
    while (one()) {
    }
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    job_ = nullptr;
  }

 private:
  bool one() {
    int mine;
    const std::function<void(int)>* job;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!job_ || next_ >= count_) return false;
      mine = next_++, job = job_;
    }
    (*job)(mine);
    std::lock_guard<std::mutex> lock(mutex_);
    if (--left_ == 0) done_.notify_all();
    return true;
  }
  void work() {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [this] { return over_ || (job_ && next_ < count_); });
        if (over_) return;
      }
      while (one()) {
      }
    }
  }
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  const std::function<void(int)>* job_ = nullptr;
  int next_ = 0, count_ = 0, left_ = 0;
  bool over_ = false;
};

// ---- the step -------------------------------------------------------------------------------------------------

struct Layer {
  int inputs, outputs, in_padded, out_padded;
  bool lowest, last;      // of its trunk; after the last there is no activation
  int64_t weight, bias;   // where they begin in a policy's parameters
  int64_t packed, turned; // where the padded weights (inputs, out_padded) and (outputs, in_padded) begin in a buffer
  int64_t gradient;       // where (inputs + 1, out_padded) begins in a buffer; the last row is the bias's
  int64_t output;         // where (BLOCK, out_padded) begins in a buffer of activations
};

}  // namespace

extern "C" {

struct Settings {
  int32_t policies, observations, states, actions, activation, actor_layers, critic_layers, threads;
  float clip, value_clip, critic_coef, bounds_coef, entropy_coef, dual_clip, grad_norm, beta1, beta2, eps;
};

struct Batch {
  const float* shared;        // rows (., observations + actions)
  const float* mine;          // rows (., actions + 7)
  const int64_t* in_shared;   // (policies, rows)
  const int64_t* in_mine;
  int64_t rows;
  const float* weights;       // (2, policies, 3): own and partner's rows in actor, critic, KL
  const float* old_log_std;   // (policies, actions)
  const float* channels;      // (policies, 2)
  const float* mask;          // (policies, parameters) or null
  const int64_t* counts;      // (policies,) how many of the rows are a policy's, or null: all
};

struct State {
  float *flat, *exp_avg, *exp_avg_sq, *steps, *learning_rate;
  float* statistics;  // (policies, 7), added to
  float* kl;          // (policies,), written
  float* gradient;    // (policies, parameters), written: clipped as Adam saw it
};

}  // extern "C"

namespace {

struct Sums {  // of rows, in double: one row's share does not depend on how many there are
  double actor, critic, kl, own, foreign, clipped_own, clipped_foreign, ratio, ratio_squared;
};

class Step {
 public:
  Step(const Settings& settings, const int32_t* sizes) : s(settings), pool(settings.threads) {
    const int trunks[2] = {s.actor_layers, s.critic_layers};
    int64_t at = 0, packed = 0, gradient = 0, output = 0;
    for (int trunk = 0; trunk < 2; trunk++) {
      for (int i = 0; i < trunks[trunk]; i++, sizes++) {
        Layer l;
        l.inputs = sizes[0], l.outputs = sizes[1], l.lowest = i == 0, l.last = i + 1 == trunks[trunk];
        l.in_padded = padded(l.inputs), l.out_padded = padded(l.outputs);
        l.weight = at, l.bias = at + (int64_t)l.inputs * l.outputs, at = l.bias + l.outputs;
        l.packed = packed, packed += (int64_t)l.inputs * l.out_padded;
        l.turned = packed, packed += (int64_t)l.outputs * l.in_padded;
        l.gradient = gradient, gradient += (int64_t)(l.inputs + 1) * l.out_padded;
        l.output = output, output += (int64_t)BLOCK * l.out_padded;
        layers.push_back(l);
      }
      if (trunks[trunk]) sizes++;
    }
    parameters = at + s.actions;
    weights_size = packed, gradient_size = gradient, outputs_size = output;
    weights.resize(s.policies * weights_size);
    gradients.resize((int64_t)s.policies * GROUPS * gradient_size);
    log_std_gradients.resize((size_t)s.policies * GROUPS * s.actions);
    sums.resize((size_t)s.policies * GROUPS);
  }

  // Writes the gradient and, unless only that is wanted, takes the step.
  void run(const Batch& batch, const State& state, bool step) {
    const int blocks = (int)((batch.rows + BLOCK - 1) / BLOCK);
    const int groups = blocks < GROUPS ? blocks : GROUPS;
    const double copied = 10.0 * s.policies * parameters, multiplied = 6.0 * s.policies * batch.rows * parameters;
    pool.run(s.policies, copied, [&](int p) { pack(p, state); });
    pool.run(s.policies * groups, multiplied, [&](int job) {
      const int p = job / groups, g = job % groups;
      begin(p, g);
      for (int block = g; block < blocks; block += groups) rows_of_block(p, g, block, batch, state);
    });
    pool.run(s.policies, 3.0 * copied, [&](int p) {
      gather(p, groups, batch, state);
      report(p, groups, state);
      if (step) apply(p, state);
    });
  }

  // Takes the step along the gradient that is there, of several processes perhaps.
  void take(const State& state) {
    pool.run(s.policies, 20.0 * s.policies * parameters, [&](int p) { apply(p, state); });
  }

 private:
  void pack(int p, const State& state) {
    const float* flat = state.flat + p * parameters;
    float* to = weights.data() + p * weights_size;
    for (const Layer& l : layers) {
      for (int i = 0; i < l.inputs; i++) {
        float* row = to + l.packed + (int64_t)i * l.out_padded;
        memcpy(row, flat + l.weight + (int64_t)i * l.outputs, 4 * l.outputs);
        for (int j = l.outputs; j < l.out_padded; j++) row[j] = 0.0f;
      }
      if (l.lowest) continue;  // nobody asks for the derivative by the observations
      for (int first = 0; first < l.in_padded; first += VEC)  // a line of the cache at a time
        for (int j = 0; j < l.outputs; j++) {
          float* row = to + l.turned + (int64_t)j * l.in_padded;
          for (int i = first; i < first + VEC; i++)
            row[i] = i < l.inputs ? to[l.packed + (int64_t)i * l.out_padded + j] : 0.0f;
        }
    }
  }

  void begin(int p, int g) {
    const int64_t at = (int64_t)p * GROUPS + g;
    memset(gradients.data() + at * gradient_size, 0, 4 * gradient_size);
    memset(log_std_gradients.data() + at * s.actions, 0, 4 * s.actions);
    sums[at] = Sums{};
  }

  // Buffers of a thread: activations and their gradients of one block.
  struct Buffers {
    std::vector<float> input, output, gradient, inverse;
    std::vector<const float*> shared, mine;
  };

  void rows_of_block(int p, int g, int block, const Batch& batch, const State& state) {
    thread_local Buffers b;
    const int64_t first = (int64_t)block * BLOCK;
    const int64_t left = (batch.counts ? batch.counts[p] : batch.rows) - first;
    if (left <= 0) return;
    const int rows = (int)(left < BLOCK ? left : BLOCK);
    const int width = s.observations;
    b.input.resize((size_t)BLOCK * width);
    b.output.resize(outputs_size);
    b.gradient.resize(outputs_size);
    b.shared.resize(BLOCK), b.mine.resize(BLOCK);
    const int64_t shared_width = s.observations + s.actions, mine_width = s.actions + 7;
    for (int i = 0; i < rows; i++) {
      const int64_t at = p * batch.rows + first + i;
      b.shared[i] = batch.shared + batch.in_shared[at] * shared_width;
      b.mine[i] = batch.mine + batch.in_mine[at] * mine_width;
      memcpy(b.input.data() + (int64_t)i * width, b.shared[i], 4 * width);
    }
    const int actor_inputs = s.observations - s.states;
    forward(p, 0, s.actor_layers, rows, b.input.data(), width, b, state);
    if (s.critic_layers)
      forward(p, s.actor_layers, s.critic_layers, rows, b.input.data() + actor_inputs, width, b, state);
    loss(p, g, rows, batch, state, b);
    backward(p, g, 0, s.actor_layers, rows, b.input.data(), width, b);
    if (s.critic_layers) backward(p, g, s.actor_layers, s.critic_layers, rows, b.input.data() + actor_inputs, width, b);
  }

  void forward(int p, int first, int count, int rows, const float* x, int64_t ld, Buffers& b, const State& state) {
    const float* packed = weights.data() + p * weights_size;
    const float* flat = state.flat + p * parameters;
    for (int i = first; i < first + count; i++) {
      const Layer& l = layers[i];
      float* y = b.output.data() + l.output;
      product(rows, l.out_padded, l.inputs, x, ld, 1, packed + l.packed, l.out_padded, y, l.out_padded, false);
      const float* bias = flat + l.bias;
      if (l.last) {
        for (int r = 0; r < rows; r++)
          for (int j = 0; j < l.outputs; j++) y[(int64_t)r * l.out_padded + j] += bias[j];
      } else {
        activate((Activation)s.activation, rows, l.outputs, bias, y, l.out_padded);
      }
      x = y, ld = l.out_padded;
    }
  }

  void backward(int p, int g, int first, int count, int rows, const float* input, int64_t width, Buffers& b) {
    const float* packed = weights.data() + p * weights_size;
    float* gradient = gradients.data() + ((int64_t)p * GROUPS + g) * gradient_size;
    for (int i = first + count - 1; i >= first; i--) {
      const Layer& l = layers[i];
      const float* d = b.gradient.data() + l.output;
      const bool lowest = i == first;
      const float* x = lowest ? input : b.output.data() + layers[i - 1].output;
      const int64_t ld = lowest ? width : layers[i - 1].out_padded;
      float* to = gradient + l.gradient;
      product(l.inputs, l.out_padded, rows, x, 1, ld, d, l.out_padded, to, l.out_padded, true);
      float* of_bias = to + (int64_t)l.inputs * l.out_padded;
      for (int r = 0; r < rows; r++)
        for (int j = 0; j < l.out_padded; j++) of_bias[j] += d[(int64_t)r * l.out_padded + j];
      if (lowest) continue;
      float* below = b.gradient.data() + layers[i - 1].output;
      product(rows, l.in_padded, l.outputs, d, l.out_padded, 1, packed + l.turned, l.in_padded, below, ld, false);
      derive((Activation)s.activation, rows, layers[i - 1].outputs, x, below, ld);
    }
  }

  // hepo_isaac/agents/loss.py: the derivative by every output, and the sums that are reported.
  void loss(int p, int g, int rows, const Batch& batch, const State& state, Buffers& b) {
    const int A = s.actions;
    const Layer& head = layers[s.actor_layers - 1];
    const Layer& critic = s.critic_layers ? layers.back() : head;
    const int value_at = s.critic_layers ? 0 : A;
    const float* log_std = state.flat + p * parameters + parameters - A;
    const float* old_log_std = batch.old_log_std + p * A;
    const float* own = batch.weights + p * 3;
    const float* partner = batch.weights + (s.policies + p) * 3;
    float* of_log_std = log_std_gradients.data() + ((int64_t)p * GROUPS + g) * A;
    Sums& sum = sums[(size_t)p * GROUPS + g];
    const bool dual = s.dual_clip < std::numeric_limits<float>::infinity();
    const float low = 1.0f - s.clip, high = 1.0f + s.clip;
    float log_norm = 0.0f, constant_kl = 0.0f;
    b.inverse.resize(A);
    for (int j = 0; j < A; j++) {
      b.inverse[j] = std::exp(-log_std[j]);
      log_norm += log_std[j] + 0.91893853320467274178f;
      constant_kl += log_std[j] - old_log_std[j] + 0.5f * std::exp(2.0f * (old_log_std[j] - log_std[j])) - 0.5f;
    }
    const float* inverse = b.inverse.data();
    for (int r = 0; r < rows; r++) {
      const float* mean = b.output.data() + head.output + (int64_t)r * head.out_padded;
      const float* value = b.output.data() + critic.output + (int64_t)r * critic.out_padded + value_at;
      float* d_mean = b.gradient.data() + head.output + (int64_t)r * head.out_padded;
      float* d_value = b.gradient.data() + critic.output + (int64_t)r * critic.out_padded + value_at;
      for (int j = head.outputs; j < head.out_padded; j++) d_mean[j] = 0.0f;
      if (s.critic_layers)
        for (int j = critic.outputs; j < critic.out_padded; j++) d_value[j] = 0.0f;
      const float* action = b.shared[r] + s.observations;
      const float* old_mean = b.mine[r];
      const float *old_value = old_mean + A, *target = old_mean + A + 2;
      const float advantage = old_mean[A + 4], on = old_mean[A + 5], before = old_mean[A + 6];
      const float in_actor = partner[0] + on * (own[0] - partner[0]);
      const float in_critic = partner[1] + on * (own[1] - partner[1]);
      const float in_kl = partner[2] + on * (own[2] - partner[2]);

      float squares = 0.0f, shifts = 0.0f;
      for (int j = 0; j < A; j++) {
        const float z = (action[j] - mean[j]) * inverse[j], shift = (mean[j] - old_mean[j]) * inverse[j];
        squares += z * z;
        shifts += shift * shift;
      }
      const float kl = constant_kl + 0.5f * shifts;
      float log_ratio = -0.5f * squares - log_norm - before;
      const bool passes = log_ratio >= -20.0f && log_ratio <= 20.0f;  // torch's clamp selects: a NaN behind it is 0
      log_ratio = log_ratio < -20.0f ? -20.0f : (log_ratio > 20.0f ? 20.0f : log_ratio);
      const float ratio = std::exp(log_ratio);
      const float clipped = ratio < low ? low : (ratio > high ? high : ratio);
      const float plain = -ratio * advantage, bounded = -clipped * advantage;
      // torch.maximum hands its gradient to the greater, and half to each of two equals.
      const float share = plain == bounded ? 0.5f : 1.0f;
      float d_ratio = plain < bounded ? 0.0f : -share * advantage;
      if (!(plain > bounded) && ratio >= low && ratio <= high) d_ratio += -share * advantage;
      float surrogate = plain > bounded || plain != plain ? plain : bounded;
      if (dual && advantage < 0 && on <= 0) {
        const float limit = -s.dual_clip * advantage;
        if (surrogate > limit) d_ratio = 0.0f;
        if (surrogate == limit) d_ratio *= 0.5f;
        surrogate = surrogate > limit ? limit : surrogate;
      }
      const float d_log_prob = passes ? in_actor * d_ratio * ratio : 0.0f;
      for (int j = 0; j < A; j++) {
        const float z = (action[j] - mean[j]) * inverse[j];
        const float size = std::fabs(mean[j]) - 1.1f;
        const float excess = size < 0 ? 0.0f : size;
        const float sign = mean[j] > 0 ? 1.0f : (mean[j] < 0 ? -1.0f : 0.0f);
        d_mean[j] = d_log_prob * z * inverse[j] + s.bounds_coef * in_kl * 2.0f * excess * (size >= 0 ? sign : 0.0f);
        of_log_std[j] += d_log_prob * (z * z - 1.0f);
      }
      for (int c = 0; c < 2; c++) {
        const float moved = value[c] - old_value[c];
        const bool inside = moved >= -s.value_clip && moved <= s.value_clip;
        const float kept = old_value[c] + (moved < -s.value_clip ? -s.value_clip : (moved > s.value_clip ? s.value_clip : moved));
        const float far = value[c] - target[c], near = kept - target[c];
        const float error = far * far, error_kept = near * near;
        const float half = error == error_kept ? 0.5f : 1.0f;
        const float slope = (error < error_kept ? 0.0f : half * 2.0f * far) +
                            (error > error_kept || !inside ? 0.0f : half * 2.0f * near);
        d_value[c] = 0.5f * s.critic_coef * in_critic * batch.channels[2 * p + c] * slope;
        const float worse = error > error_kept || error != error ? error : error_kept;
        sum.critic += (double)(worse * in_critic) * batch.channels[2 * p + c];
      }
      sum.actor += surrogate * in_actor;
      sum.kl += kl * in_kl;
      const float off = 1.0f - on, outside = std::fabs(ratio - 1.0f) > s.clip ? 1.0f : 0.0f;
      sum.own += on, sum.foreign += off;
      sum.clipped_own += outside * on, sum.clipped_foreign += outside * off;
      sum.ratio += ratio * off, sum.ratio_squared += (double)(ratio * off) * (ratio * off);
    }
  }

  void gather(int p, int groups, const Batch& batch, const State& state) {
    float* gradient = state.gradient + p * parameters;
    const float* from = gradients.data() + (int64_t)p * GROUPS * gradient_size;
    for (const Layer& l : layers)
      for (int i = 0; i <= l.inputs; i++) {  // the last row is the bias
        float* to = gradient + (i < l.inputs ? l.weight + (int64_t)i * l.outputs : l.bias);
        const float* row = from + l.gradient + (int64_t)i * l.out_padded;
        memcpy(to, row, 4 * l.outputs);
        for (int g = 1; g < groups; g++)
          for (int j = 0; j < l.outputs; j++) to[j] += row[g * gradient_size + j];
      }
    for (int j = 0; j < s.actions; j++) {
      float total = -s.entropy_coef;
      for (int g = 0; g < groups; g++) total += log_std_gradients[((int64_t)p * GROUPS + g) * s.actions + j];
      gradient[parameters - s.actions + j] = total;
    }
    if (batch.mask)
      for (int64_t i = 0; i < parameters; i++) gradient[i] *= batch.mask[p * parameters + i];
  }

  // Clips the gradient and takes Adam's step along it.
  void apply(int p, const State& state) {
    float* gradient = state.gradient + p * parameters;
    double squares[VEC] = {}, square = 0.0;
    const int64_t whole = parameters / VEC * VEC;
    for (int64_t i = 0; i < whole; i += VEC)
      for (int k = 0; k < VEC; k++) squares[k] += (double)gradient[i + k] * gradient[i + k];
    for (int64_t i = whole; i < parameters; i++) square += (double)gradient[i] * gradient[i];
    for (int k = 0; k < VEC; k++) square += squares[k];
    const float norm = (float)std::sqrt(square);
    adam(p, norm, state.flat + p * parameters, gradient, state);
    state.statistics[p * STATISTICS + STATISTICS - 1] += norm;
  }

  void adam(int p, float norm, float* flat, float* gradient, const State& state) {
    float* m = state.exp_avg + p * parameters;
    float* v = state.exp_avg_sq + p * parameters;
    const float wanted = s.grad_norm / (norm + 1e-6f), shrink = wanted > 1.0f ? 1.0f : wanted;
    const float steps = state.steps[p] += 1.0f;
    const float first = 1.0f - s.beta1, second = 1.0f - s.beta2;
    const float scale = state.learning_rate[p] / (1.0f - std::pow(s.beta1, steps));
    const float spread = 1.0f - std::pow(s.beta2, steps);
    for (int64_t i = 0; i < parameters; i++) {
      const float g = gradient[i] * shrink;
      gradient[i] = g;
      m[i] += first * (g - m[i]);
      v[i] = v[i] * s.beta2 + second * g * g;
      flat[i] -= scale * (m[i] / (std::sqrt(v[i] / spread) + s.eps));
    }
  }

  void report(int p, int groups, const State& state) {
    Sums all{};
    for (int g = 0; g < groups; g++) {
      const Sums& one = sums[(size_t)p * GROUPS + g];
      all.actor += one.actor, all.critic += one.critic, all.kl += one.kl;
      all.own += one.own, all.foreign += one.foreign;
      all.clipped_own += one.clipped_own, all.clipped_foreign += one.clipped_foreign;
      all.ratio += one.ratio, all.ratio_squared += one.ratio_squared;
    }
    const double divisor = all.foreign * all.ratio_squared;
    const double effective = all.ratio * all.ratio / (divisor < 1e-12 ? 1e-12 : divisor);
    const double found[STATISTICS - 1] = {all.actor, all.critic, all.kl,  // the last one is the norm
                                          all.clipped_own / (all.own < 1.0 ? 1.0 : all.own),
                                          all.clipped_foreign / (all.foreign < 1.0 ? 1.0 : all.foreign),
                                          all.foreign > 0 ? effective : 1.0};
    for (int i = 0; i < STATISTICS - 1; i++) state.statistics[p * STATISTICS + i] += (float)found[i];
    state.kl[p] = (float)all.kl;
  }

  const Settings s;
  Pool pool;
  std::vector<Layer> layers;
  int64_t parameters, weights_size, gradient_size, outputs_size;
  std::vector<float> weights, gradients, log_std_gradients;
  std::vector<Sums> sums;
};

}  // namespace

extern "C" {

void* hepo_new(const Settings* settings, const int32_t* sizes) { return new Step(*settings, sizes); }
void hepo_delete(void* step) { delete (Step*)step; }
int64_t hepo_step(void* step, const Batch* batch, const State* state) {
  ((Step*)step)->run(*batch, *state, true);
  return 0;
}
int64_t hepo_gradient(void* step, const Batch* batch, const State* state) {
  ((Step*)step)->run(*batch, *state, false);
  return 0;
}
int64_t hepo_apply(void* step, const State* state) {
  ((Step*)step)->take(*state);
  return 0;
}
}
