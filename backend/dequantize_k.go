package backend

import "encoding/binary"

// Blocks of 256 ("k-quants", llama.cpp pull request 1684): sub-blocks of 16 or 32 with small integer scales (and minima), themselves in units of the
// block's half-precision d (and dmin).

// expandQ2K: scales [16] (low nibble scale, high nibble minimum), quants [64], d, dmin. Each 32 bytes of quants hold four runs of 32
// elements, two bits each.
func expandQ2K(y []float32, b []byte) {
	scales, q, d, dmin := b[:16], b[16:80], half(b[80:]), half(b[82:])
	for s, sc := range scales {
		dl, ml := d*float32(sc&15), dmin*float32(sc>>4)
		run := s / 2 // of 32 elements
		shift := uint(run%4) * 2
		from := q[run/4*32+s%2*16:][:16]
		for l, v := range from {
			y[s*16+l] = float32(dl*float32(v>>shift&3)) - ml
		}
	}
}

// q3Scale unpacks the 6-bit scale s of 16: four low bits in bytes 0 to 7, two high bits in bytes 8 to 11.
func q3Scale(scales []byte, s int) int {
	low := scales[s%8] >> (s / 8 * 4) & 15
	high := scales[8+s%4] >> (s / 4 * 2) & 3
	return int(low|high<<4) - 32
}

// expandQ3K: high bits [32], quants [64], scales [12], d. A high bit that is not set subtracts 4.
func expandQ3K(y []float32, b []byte) {
	high, q, scales, d := b[:32], b[32:96], b[96:108], half(b[108:])
	for s := range 16 {
		dl := d * float32(q3Scale(scales, s))
		run := s / 2
		shift := uint(run%4) * 2
		from := q[run/4*32+s%2*16:][:16]
		bits := high[s%2*16:][:16]
		for l, v := range from {
			y[s*16+l] = dl * float32(int(v>>shift&3)+int(bits[l]>>run&1)*4-4)
		}
	}
}

// k4ScaleMin unpacks the 6-bit scale and minimum of sub-block s of 8 from 12 bytes.
func k4ScaleMin(b []byte, s int) (scale, minimum byte) {
	if s < 4 {
		return b[s] & 63, b[s+4] & 63
	}
	return b[s+4]&15 | b[s-4]>>6<<4, b[s+4]>>4 | b[s]>>6<<4
}

// expandQ4K: d, dmin, scales [12], quants [128]. Each 32 bytes hold two sub-blocks of 32: low nibbles, then high nibbles.
func expandQ4K(y []float32, b []byte) {
	d, dmin, scales, q := half(b), half(b[2:]), b[4:16], b[16:144]
	for s := range 8 {
		sc, m := k4ScaleMin(scales, s)
		ds, ms := d*float32(sc), dmin*float32(m)
		shift := uint(s%2) * 4
		for l, v := range q[s/2*32:][:32] {
			y[s*32+l] = float32(ds*float32(v>>shift&15)) - ms
		}
	}
}

// expandQ5K: as expandQ4K with fifth bits [32] before the quants: bit s of byte l belongs to element l of sub-block s.
func expandQ5K(y []float32, b []byte) {
	d, dmin, scales, high, q := half(b), half(b[2:]), b[4:16], b[16:48], b[48:176]
	for s := range 8 {
		sc, m := k4ScaleMin(scales, s)
		ds, ms := d*float32(sc), dmin*float32(m)
		shift := uint(s%2) * 4
		for l, v := range q[s/2*32:][:32] {
			y[s*32+l] = float32(ds*float32(v>>shift&15|high[l]>>s&1<<4)) - ms
		}
	}
}

// expandQ6K: low nibbles [128], high pairs of bits [64], scales int8 [16], d. Each half of the block has four runs of 32 elements.
func expandQ6K(y []float32, b []byte) {
	low, high, scales, d := b[:128], b[128:192], b[192:208], half(b[208:])
	for run := range 8 {
		h, r := run/4, run%4
		lo, hi := low[h*64+r%2*32:][:32], high[h*32:][:32]
		lowShift, highShift := uint(r/2)*4, uint(r)*2
		for l := range 32 {
			v := int(lo[l]>>lowShift&15|hi[l]>>highShift&3<<4) - 32
			y[run*32+l] = float32(d*float32(int8(scales[run*2+l/16]))) * float32(v)
		}
	}
}

// expandIQ4XS: d, high bits of the scales (16), low nibbles of the scales [4], quants [128] as indexes into iq4Values.
func expandIQ4XS(y []float32, b []byte) {
	d, high, low, q := half(b), binary.LittleEndian.Uint16(b[2:]), b[4:8], b[8:136]
	for s := range 8 {
		scale := int(low[s/2]>>(s%2*4)&15) | int(high>>(2*s)&3)<<4
		dl := d * float32(scale-32)
		for j, v := range q[s*16:][:16] {
			y[s*32+j] = dl * iq4Values[v&15]
			y[s*32+j+16] = dl * iq4Values[v>>4]
		}
	}
}
