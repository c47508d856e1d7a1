package backend

import (
	"fmt"

	"github.com/temper-ml/temper/core/tensor"
)

// Stored holds the keys and values of one sequence as rows of KVHeads·HeadDim elements of a type: F32, F16 or Q8_0. A row of Q8_0 is a whole number
// of blocks for each head. Rows lie without gaps; their number is the sequence's KLen.
type Stored struct {
	Type tensor.DType
	K, V []byte
}

// StoredAttention is an optional interface of Kernels that meets stored keys and values as they are.
type StoredAttention interface {
	// MeetsStored reports whether rows of a type are read about as fast as float32.
	MeetsStored(typ tensor.DType) bool
	// StoreRows writes rows of float32 as typ, as Quantize does. len(src) is a whole number of blocks.
	StoreRows(dst []byte, typ tensor.DType, src []float32)
	// AttentionStored is Attention, without gradients, dropout and bias, over keys and values that are stored[i] for sequence i; a.K, a.V and the
	// KStart of the sequences are not used. It is Attention over the values that are stored, and the last query of a causal sequence gets the same
	// bits with 31 others before it, in the same or in an earlier call: guessed tokens are checked together.
	AttentionStored(a AttentionArgs, stored []Stored)
}

// CanStore reports whether keys and values of heads of so many elements can be stored as typ.
func CanStore(typ tensor.DType, headDim int) error {
	switch typ {
	case tensor.F32, tensor.F16:
		return nil
	case tensor.Q8_0:
		if n := typ.BlockLen(); headDim%n != 0 {
			return fmt.Errorf("keys and values of heads of %d cannot be stored as %s: expected a multiple of %d", headDim, typ, n)
		}
		return nil
	}
	return fmt.Errorf("keys and values cannot be stored as %s: expected f32, f16 or q8_0", typ)
}

// CheckStored panics when the operands do not fit.
func CheckStored(a *AttentionArgs, stored []Stored) {
	const op = "attention over stored rows"
	if a.Heads <= 0 || a.KVHeads <= 0 || a.HeadDim <= 0 || a.Heads%a.KVHeads != 0 || len(stored) != len(a.Seqs) || a.Bias != nil || a.DropoutP > 0 {
		panic(fmt.Sprintf("backend: %s: %d heads over %d key heads of %d, %d sequences with %d stores", op, a.Heads, a.KVHeads, a.HeadDim, len(a.Seqs), len(stored)))
	}
	q := 0
	for i, s := range a.Seqs {
		if s.QStart < 0 || s.QLen < 0 || s.KLen < 0 {
			panic(fmt.Sprintf("backend: %s: sequence %d is %+v", op, i, s))
		}
		if s.QLen > 0 {
			q = max(q, s.QStart+s.QLen)
		}
		if err := CanStore(stored[i].Type, a.HeadDim); err != nil {
			panic("backend: " + op + ": " + err.Error())
		}
		size := s.KLen * stored[i].Type.RowBytes(a.KVHeads*a.HeadDim)
		Need(op, "k", len(stored[i].K), size)
		Need(op, "v", len(stored[i].V), size)
	}
	needMatrix(op, "q", len(a.Q), q, a.Heads*a.HeadDim, a.QStride)
	needMatrix(op, "out", len(a.Out), q, a.Heads*a.HeadDim, a.OStride)
	if a.LSE != nil {
		Need(op, "lse", len(a.LSE), q*a.Heads)
	}
}

// StoreRows stores rows with any Kernels.
func StoreRows(k Kernels, dst []byte, typ tensor.DType, src []float32) {
	switch s, ok := k.(StoredAttention); {
	case ok:
		s.StoreRows(dst, typ, src)
	case typ == tensor.F32:
		copy(dst, tensor.Bytes(src))
	default:
		Quantize(dst, typ, src)
	}
}

// AttendStored is StoredAttention's AttentionStored with any Kernels: those without it get one sequence at a time, expanded where it is not float32.
func AttendStored(k Kernels, a AttentionArgs, stored []Stored) {
	if s, ok := k.(StoredAttention); ok {
		s.AttentionStored(a, stored)
		return
	}
	CheckStored(&a, stored)
	seqs := a.Seqs
	for i, s := range seqs {
		width := a.KVHeads * a.HeadDim
		one := a
		s.KStart = 0
		one.Seqs, one.KStride, one.VStride = []Seq{s}, width, width
		one.K, one.V = ExpandStored(nil, stored[i].Type, stored[i].K, s.KLen*width), ExpandStored(nil, stored[i].Type, stored[i].V, s.KLen*width)
		k.Attention(one)
	}
}

// ExpandStored returns the first n elements of stored rows as float32: a view of rows that are, otherwise written to dst, which is made when it is too
// short.
func ExpandStored(dst []float32, typ tensor.DType, src []byte, n int) []float32 {
	if typ == tensor.F32 {
		if v, ok := tensor.View[float32](src); ok {
			return v[:n]
		}
	}
	if len(dst) < n {
		dst = make([]float32, n)
	}
	DequantizeRow(dst[:n], typ, src)
	return dst[:n]
}
