package digest

import (
	"encoding/binary"
	"hash"
	"math/bits"
)

// portable is SHA-256 by FIPS 180-4, section 6.2, without anything else.
type portable struct {
	h     [8]uint32
	block [64]byte
	n     uint64 // bytes written
}

var _ hash.Hash = (*portable)(nil)

func newPortable() *portable {
	p := &portable{}
	p.Reset()
	return p
}

// The fractional parts of the square roots of the first 8 primes, and of the cube roots of the first 64.
var (
	initial = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
	rounds  = cubeRoots()
)

// cubeRoots computes the constants of section 4.2.2: 32 bits after the point of the cube roots of the first 64 primes, by integers alone.
func cubeRoots() (k [64]uint32) {
	n := 0
	for p := uint64(2); n < len(k); p++ {
		prime := true
		for d := uint64(2); d*d <= p; d++ {
			prime = prime && p%d != 0
		}
		if !prime {
			continue
		}
		// The largest x with x³ <= p·2⁹⁶, bit by bit; x < 7·2³².
		var x uint64
		for bit := uint64(1) << 34; bit > 0; bit >>= 1 {
			if y := x | bit; atMost(y, p) {
				x = y
			}
		}
		k[n] = uint32(x)
		n++
	}
	return k
}

// atMost reports y³ <= p·2⁹⁶ for y < 2³⁵.
func atMost(y, p uint64) bool {
	hi, lo := bits.Mul64(y, y) // below 2⁷⁰
	h1, l1 := bits.Mul64(lo, y)
	_, top := bits.Mul64(hi, y)
	h1, carry := bits.Add64(h1, top, 0)
	if carry != 0 {
		return false
	}
	return h1 < p<<32 || h1 == p<<32 && l1 == 0
}

func (p *portable) Reset() { p.h, p.n = initial, 0 }

func (p *portable) Size() int { return Size }

func (p *portable) BlockSize() int { return 64 }

func (p *portable) Write(b []byte) (int, error) {
	total := len(b)
	for len(b) > 0 {
		at := int(p.n % 64)
		n := copy(p.block[at:], b)
		p.n += uint64(n)
		b = b[n:]
		if at+n == 64 {
			p.mix()
		}
	}
	return total, nil
}

func (p *portable) mix() {
	var w [64]uint32
	for i := range 16 {
		w[i] = binary.BigEndian.Uint32(p.block[4*i:])
	}
	for i := 16; i < 64; i++ {
		a, b := w[i-15], w[i-2]
		s0 := bits.RotateLeft32(a, -7) ^ bits.RotateLeft32(a, -18) ^ a>>3
		s1 := bits.RotateLeft32(b, -17) ^ bits.RotateLeft32(b, -19) ^ b>>10
		w[i] = w[i-16] + s0 + w[i-7] + s1
	}
	v := p.h
	for i := range 64 {
		a, e := v[0], v[4]
		s1 := bits.RotateLeft32(e, -6) ^ bits.RotateLeft32(e, -11) ^ bits.RotateLeft32(e, -25)
		t1 := v[7] + s1 + (e&v[5] ^ ^e&v[6]) + rounds[i] + w[i]
		s0 := bits.RotateLeft32(a, -2) ^ bits.RotateLeft32(a, -13) ^ bits.RotateLeft32(a, -22)
		t2 := s0 + (a&v[1] ^ a&v[2] ^ v[1]&v[2])
		v = [8]uint32{t1 + t2, a, v[1], v[2], v[3] + t1, e, v[5], v[6]}
	}
	for i := range v {
		p.h[i] += v[i]
	}
}

func (p *portable) Sum(b []byte) []byte {
	q := *p
	length := q.n * 8
	pad := make([]byte, 1+(119-q.n%64)%64+8)
	pad[0] = 0x80
	binary.BigEndian.PutUint64(pad[len(pad)-8:], length)
	_, _ = q.Write(pad)
	for _, x := range q.h {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}
