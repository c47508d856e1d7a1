package peft

import (
	"fmt"
	"math"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
)

// oft rotates the input of a layer by a block-diagonal orthogonal matrix: y = act((x·R)·Wᵀ + b), R being the Cayley transform
// (I − Q)(I + Q)⁻¹ of skew-symmetric Q. Qiu et al., 2023, "Controlling Text-to-Image Diffusion by Orthogonal Finetuning".
//
// boft composes several such rotations, each after a butterfly permutation, and scales the outputs: y = act(s ⊙ ((x·R_m·…·R_1)·Wᵀ) + b).
// Liu et al., 2024, "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization".
type oft struct {
	q      *grad.Param // OFT [blocks, b(b−1)/2] (or one block for all), BOFT [factors, blocks, b, b]
	s      *grad.Param // BOFT [Out, 1]
	levels []rotation
}

// rotation is one block-diagonal factor.
type rotation struct {
	size, blocks int
	shared       bool
	triangle     bool // parameters are the upper triangle of Q, else D with Q = (D − Dᵀ)/2
	terms        int  // of the Neumann series that stands for the inverse; 0 is exact
	at           int  // of the factor's parameters
	perm         []int
}

func newOFT(cfg *Config, l *model.Linear) (*oft, error) {
	if cfg.Constrained {
		return nil, fmt.Errorf("coft (a bound on the rotation) is not supported")
	}
	size := cfg.BlockSize
	if size == 0 && cfg.R > 0 {
		size = l.In / divisor(l.In, cfg.R)
	}
	if size <= 0 || size > 1024 {
		return nil, fmt.Errorf("oft_block_size: expected 1 to 1024, got %d", size)
	}
	size = divisor(l.In, size)
	rot := rotation{size: size, blocks: l.In / size, shared: cfg.BlockShare, triangle: true}
	if cfg.CayleyNeumann {
		rot.terms = cfg.NeumannTerms
		if rot.terms < 2 || rot.terms > 64 {
			return nil, fmt.Errorf("num_cayley_neumann_terms: expected 2 to 64, got %d", rot.terms)
		}
	}
	rows := rot.blocks
	if rot.shared {
		rows = 1
	}
	return &oft{q: newParam("base_model.model."+l.Name+".oft_R.weight", rows, size*(size-1)/2), levels: []rotation{rot}}, nil
}

// divisor is the divisor of n nearest to d, the smaller of two, as peft adjusts block sizes.
func divisor(n, d int) int {
	if d >= n {
		return n
	}
	lo, hi := d, d
	for lo > 1 && n%lo != 0 {
		lo--
	}
	for hi < n && n%hi != 0 {
		hi++
	}
	if d-lo <= hi-d {
		return lo
	}
	return hi
}

func newBOFT(m *Model, l *model.Linear) (*oft, error) {
	cfg := &m.cfg
	size, blocks := cfg.ButterflySize, cfg.ButterflyBlocks
	switch {
	case size > 0 && blocks == 0 && l.In%size == 0:
		blocks = l.In / size
	case size == 0 && blocks > 0 && l.In%blocks == 0:
		size = l.In / blocks
	default:
		return nil, fmt.Errorf("boft_block_size %d, boft_block_num %d: expected one of them, dividing %d", size, blocks, l.In)
	}
	name := "base_model.model." + l.Name
	factors := max(1, cfg.ButterflyFactors)
	if m.file != nil { // peft writes one factor, whatever the config says, where its extension was not built
		t, err := m.file.Tensor(name + ".boft_R")
		if err != nil {
			return nil, err
		}
		if len(t.Shape) != 4 {
			return nil, fmt.Errorf("%s.boft_R: expected 4 dimensions, got shape %v", name, t.Shape)
		}
		factors = t.Shape[0]
	}
	if factors < 1 || factors > 16 || size > 1024 {
		return nil, fmt.Errorf("boft_n_butterfly_factor %d, block size %d: expected 1 to 16 and at most 1024", factors, size)
	}
	if factors > 1 && (size%2 != 0 || l.In%(size<<(factors-1)) != 0) {
		return nil, fmt.Errorf("boft_n_butterfly_factor %d: expected an even block size and an input that is a multiple of %d, got %d and %d",
			factors, size<<(factors-1), size, l.In)
	}
	o := &oft{q: newParam(name+".boft_R", factors, blocks, size, size), s: newParam(name+".boft_s", l.Out, 1)}
	fill(o.s, 1)
	for i := range factors {
		rot := rotation{size: size, blocks: blocks, at: i * blocks * size * size}
		if factors > 1 {
			rot.perm = butterfly(l.In, blocks>>i, size/2)
		}
		o.levels = append(o.levels, rot)
	}
	// x·(B_{m-1}·…·B_0): the last factor acts first.
	for i, j := 0, len(o.levels)-1; i < j; i, j = i+1, j-1 {
		o.levels[i], o.levels[j] = o.levels[j], o.levels[i]
	}
	return o, nil
}

// butterfly lists, for each of n places, where it goes: within each of b blocks, runs of length r at even places first, then the odd ones.
func butterfly(n, b, r int) []int {
	block := n / b
	var order []int
	for parity := range 2 {
		for run := parity; run < block/r; run += 2 {
			for i := range r {
				order = append(order, run*r+i)
			}
		}
	}
	out := make([]int, n)
	for i := range out {
		out[i] = i/block*block + order[i%block]
	}
	return out
}

func (o *oft) params() []*grad.Param {
	if o.s == nil {
		return []*grad.Param{o.q}
	}
	return []*grad.Param{o.q, o.s}
}

func (o *oft) Apply(c *grad.Ctx, l *model.Linear, x *grad.Value, act backend.Activation) *grad.Value {
	for i := range o.levels {
		x = o.levels[i].apply(c, x, o.q)
	}
	if o.s == nil {
		return l.Base(c, x, act)
	}
	y := c.Linear(x, l.W, nil, backend.None, l.Transposed)
	y = c.MulRow(y, c.Reshape(c.Param(o.s), 1, l.Out))
	if l.B != nil {
		y = c.AddRow(y, c.Param(l.B))
	}
	if act == backend.None {
		return y
	}
	return c.Act(y, act)
}

func (o *oft) merge(l *model.Linear, w, _ []float32) error {
	// (x·R)·Wᵀ = x·(W·Rᵀ)ᵀ: the rows of W are rotated back, in the opposite order.
	row := make([]float32, l.In)
	for k := len(o.levels) - 1; k >= 0; k-- {
		r := &o.levels[k]
		blocks, _, _ := r.matrices(o.q.Values())
		for i := range l.Out {
			src := w[i*l.In : (i+1)*l.In]
			r.rotate(row, src, blocks, true)
			copy(src, row)
		}
	}
	if o.s != nil {
		for i, s := range o.s.Values() {
			for j := range l.In {
				w[i*l.In+j] *= s
			}
		}
	}
	return nil
}

// count is the number of different blocks, each with its parameters.
func (r *rotation) count() int {
	if r.shared {
		return 1
	}
	return r.blocks
}

func (r *rotation) stride() int {
	if r.triangle {
		return r.size * (r.size - 1) / 2
	}
	return r.size * r.size
}

// skew returns Q of block k.
func (r *rotation) skew(p []float32, k int) []float64 {
	n := r.size
	v := p[r.at+k*r.stride():]
	q := make([]float64, n*n)
	at := 0
	for i := range n {
		for j := i + 1; j < n; j++ {
			x := 0.0
			if r.triangle {
				x = float64(v[at])
				at++
			} else {
				x = (float64(v[i*n+j]) - float64(v[j*n+i])) / 2
			}
			q[i*n+j], q[j*n+i] = x, -x
		}
	}
	return q
}

// matrices returns the orthogonal blocks as f32, and in f64 with (I + Q)⁻¹ (exact) or Q (Neumann) for the backward pass.
func (r *rotation) matrices(p []float32) (blocks []float32, rot, aux [][]float64) {
	n := r.size
	for k := range r.count() {
		q := r.skew(p, k)
		var x, a []float64
		if r.terms == 0 {
			plus, minus := make([]float64, n*n), make([]float64, n*n)
			for i, v := range q {
				plus[i], minus[i] = v, -v
			}
			for i := range n {
				plus[i*n+i]++
				minus[i*n+i]++
			}
			a = inverse(plus, n) // I + Q is never singular: the eigenvalues of Q are imaginary
			x = matmul(minus, a, n)
		} else {
			x, a = neumann(q, n, r.terms), q
		}
		rot, aux = append(rot, x), append(aux, a)
		for _, v := range x {
			blocks = append(blocks, float32(v))
		}
	}
	return blocks, rot, aux
}

// coefficients of I + 2Q + 2Q² + … + 2Q^(t−2) + Q^(t−1), as peft truncates the series.
func coefficient(power, terms int) float64 {
	switch {
	case power == 0:
		return 1
	case power == terms-1 && terms > 3:
		return 1
	}
	return 2
}

// powers is the number of powers of Q in the truncated series.
func powers(terms int) int {
	switch terms {
	case 2:
		return 2
	case 3:
		return 4 // peft adds 2Q² and then Q³
	}
	return terms
}

func neumann(q []float64, n, terms int) []float64 {
	x := make([]float64, n*n)
	p := identity(n)
	for k := range powers(terms) {
		f := coefficient(k, terms)
		if terms == 3 && k == 3 {
			f = 1
		}
		for i, v := range p {
			x[i] += f * v
		}
		p = matmul(p, q, n)
	}
	return x
}

// rotate writes x·R, or x·Rᵀ, of one row.
func (r *rotation) rotate(dst, x, blocks []float32, transposed bool) {
	n := r.size
	in := x
	if r.perm != nil {
		in = make([]float32, len(x))
		for i, to := range r.perm {
			in[to] = x[i]
		}
	}
	out := dst
	if r.perm != nil {
		out = make([]float32, len(x))
	}
	for b := range r.blocks {
		m := blocks
		if !r.shared {
			m = blocks[b*n*n:]
		}
		xb, yb := in[b*n:(b+1)*n], out[b*n:(b+1)*n]
		if transposed {
			for c := range yb {
				var s float32
				for k, v := range m[c*n : (c+1)*n] {
					s += xb[k] * v
				}
				yb[c] = s
			}
			continue
		}
		clear(yb)
		for k, xv := range xb {
			for c, v := range m[k*n : (k+1)*n] {
				yb[c] += xv * v
			}
		}
	}
	if r.perm != nil {
		for i, from := range r.perm {
			dst[i] = out[from]
		}
	}
}

func (r *rotation) apply(c *grad.Ctx, x *grad.Value, p *grad.Param) *grad.Value {
	blocks, rot, aux := r.matrices(p.Values())
	y := c.New(x.Rows, x.Cols)
	for i := range x.Rows {
		r.rotate(y.Data[i*x.Cols:(i+1)*x.Cols], x.Data[i*x.Cols:(i+1)*x.Cols], blocks, false)
	}
	return c.OpParam(y, func() {
		if dx := c.GradOf(x); dx != nil {
			row := make([]float32, x.Cols)
			for i := range x.Rows {
				r.rotate(row, y.Grad[i*x.Cols:(i+1)*x.Cols], blocks, true)
				d := dx[i*x.Cols : (i+1)*x.Cols]
				for j, v := range row {
					d[j] += v
				}
			}
		}
		if p.Trainable() {
			r.backward(p.Grad, x, y.Grad, rot, aux)
		}
	}, p.Trainable(), x)
}

// backward adds the gradients of the parameters.
func (r *rotation) backward(dp []float32, x *grad.Value, dy []float32, rot, aux [][]float64) {
	n := r.size
	g := make([][]float64, r.count()) // dL/dR of each block: Σ rows xᵀ·dy
	for k := range g {
		g[k] = make([]float64, n*n)
	}
	in, out := make([]float32, x.Cols), make([]float32, x.Cols)
	for i := range x.Rows {
		xr, dr := x.Data[i*x.Cols:(i+1)*x.Cols], dy[i*x.Cols:(i+1)*x.Cols]
		if r.perm != nil {
			for j, to := range r.perm {
				in[to], out[to] = xr[j], dr[j]
			}
			xr, dr = in, out
		}
		for b := range r.blocks {
			m := g[0]
			if !r.shared {
				m = g[b]
			}
			for a, xv := range xr[b*n : (b+1)*n] {
				for c, dv := range dr[b*n : (b+1)*n] {
					m[a*n+c] += float64(xv) * float64(dv)
				}
			}
		}
	}
	for k, gk := range g {
		var dq []float64
		if r.terms == 0 {
			// R = (I − Q)·M, M = (I + Q)⁻¹: dR = −(I + R)·dQ·M, so dL/dQ = −(I + R)ᵀ·G·Mᵀ.
			ir := make([]float64, n*n)
			copy(ir, rot[k])
			for i := range n {
				ir[i*n+i]++
			}
			dq = matmul(matmul(transpose(ir, n), gk, n), transpose(aux[k], n), n)
			for i := range dq {
				dq[i] = -dq[i]
			}
		} else {
			dq = neumannBackward(aux[k], gk, n, r.terms)
		}
		d := dp[r.at+k*r.stride():]
		at := 0
		for i := range n {
			for j := i + 1; j < n; j++ {
				v := dq[i*n+j] - dq[j*n+i]
				if r.triangle {
					d[at] += float32(v)
					at++
				} else {
					d[i*n+j] += float32(v / 2)
					d[j*n+i] -= float32(v / 2)
				}
			}
		}
	}
}

// neumannBackward: d(Q^k) contributes Σ_j (Qᵀ)^j·G·(Qᵀ)^(k−1−j).
func neumannBackward(q, g []float64, n, terms int) []float64 {
	t := transpose(q, n)
	pow := [][]float64{identity(n)}
	for range powers(terms) {
		pow = append(pow, matmul(pow[len(pow)-1], t, n))
	}
	dq := make([]float64, n*n)
	for k := 1; k < powers(terms); k++ {
		f := coefficient(k, terms)
		if terms == 3 && k == 3 {
			f = 1
		}
		for j := range k {
			for i, v := range matmul(matmul(pow[j], g, n), pow[k-1-j], n) {
				dq[i] += f * v
			}
		}
	}
	return dq
}

func identity(n int) []float64 {
	m := make([]float64, n*n)
	for i := range n {
		m[i*n+i] = 1
	}
	return m
}

func transpose(a []float64, n int) []float64 {
	t := make([]float64, n*n)
	for i := range n {
		for j := range n {
			t[j*n+i] = a[i*n+j]
		}
	}
	return t
}

func matmul(a, b []float64, n int) []float64 {
	c := make([]float64, n*n)
	for i := range n {
		for k := range n {
			v := a[i*n+k]
			if v == 0 {
				continue
			}
			for j := range n {
				c[i*n+j] += v * b[k*n+j]
			}
		}
	}
	return c
}

// inverse by Gauss-Jordan elimination with partial pivoting.
func inverse(a []float64, n int) []float64 {
	m, inv := append([]float64(nil), a...), identity(n)
	for c := range n {
		p := c
		for r := c + 1; r < n; r++ {
			if math.Abs(m[r*n+c]) > math.Abs(m[p*n+c]) {
				p = r
			}
		}
		for j := range n {
			m[c*n+j], m[p*n+j] = m[p*n+j], m[c*n+j]
			inv[c*n+j], inv[p*n+j] = inv[p*n+j], inv[c*n+j]
		}
		f := 1 / m[c*n+c]
		for j := range n {
			m[c*n+j] *= f
			inv[c*n+j] *= f
		}
		for r := range n {
			if v := m[r*n+c]; r != c && v != 0 {
				for j := range n {
					m[r*n+j] -= v * m[c*n+j]
					inv[r*n+j] -= v * inv[c*n+j]
				}
			}
		}
	}
	return inv
}
