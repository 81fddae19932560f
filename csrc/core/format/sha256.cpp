#include "core/format/sha256.h"

#include <array>
#include <cstring>

namespace portrt {
namespace {

constexpr size_t kBlock = 64;
constexpr size_t kRounds = 64;

// FIPS 180-4, 4.2.2 and 5.3.3: the first 32 bits of the fractional parts of the cube roots of the
// first 64 primes, and of the square roots of the first 8.
constexpr std::array<uint32_t, kRounds> kConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
using State = std::array<uint32_t, 8>;
constexpr State kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

uint32_t rotated(uint32_t word, int bits) { return (word >> bits) | (word << (32 - bits)); }

void add_block(State& state, const uint8_t* block) {
  std::array<uint32_t, kRounds> words;
  for (size_t t = 0; t < 16; ++t) {
    const uint8_t* at = block + 4 * t;
    words[t] = static_cast<uint32_t>(at[0]) << 24 | static_cast<uint32_t>(at[1]) << 16 |
               static_cast<uint32_t>(at[2]) << 8 | static_cast<uint32_t>(at[3]);
  }
  for (size_t t = 16; t < kRounds; ++t) {
    const uint32_t near = words[t - 2], far = words[t - 15];
    const uint32_t one = rotated(near, 17) ^ rotated(near, 19) ^ (near >> 10);
    const uint32_t zero = rotated(far, 7) ^ rotated(far, 18) ^ (far >> 3);
    words[t] = one + words[t - 7] + zero + words[t - 16];
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t t = 0; t < kRounds; ++t) {
    const uint32_t sum_e = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
    const uint32_t chosen = (e & f) ^ (~e & g);
    const uint32_t first = h + sum_e + chosen + kConstants[t] + words[t];
    const uint32_t sum_a = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
    const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
    h = g;
    g = f;
    f = e;
    e = d + first;
    d = c;
    c = b;
    b = a;
    a = first + sum_a + majority;
  }
  const State found = {a, b, c, d, e, f, g, h};
  for (size_t index = 0; index < state.size(); ++index) state[index] += found[index];
}

}  // namespace

std::string sha256(const void* data, uint64_t size) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  State state = kStart;
  const uint64_t whole = size / kBlock * kBlock;
  for (uint64_t at = 0; at < whole; at += kBlock) add_block(state, bytes + at);
  // The rest, a bit of one, and the length in bits as the last 8 bytes of a block.
  std::array<uint8_t, 2 * kBlock> tail{};
  const size_t rest = static_cast<size_t>(size - whole);
  if (rest != 0) std::memcpy(tail.data(), bytes + whole, rest);
  tail[rest] = 0x80;
  const size_t padded = rest + 9 <= kBlock ? kBlock : 2 * kBlock;
  for (size_t index = 0; index < 8; ++index) {
    tail[padded - 1 - index] = static_cast<uint8_t>((size * 8) >> (8 * index));
  }
  for (size_t at = 0; at < padded; at += kBlock) add_block(state, tail.data() + at);
  std::string text;
  for (uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
  }
  return text;
}

}  // namespace portrt
