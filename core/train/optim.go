package train

import (
	"fmt"
	"math"
	"strings"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/tensor"
)

// Group is a set of parameters that share their decay and a factor on the learning rate (0 means 1).
type Group struct {
	Params      []*grad.Param
	WeightDecay float64
	Scale       float64
}

// Groups splits trainable parameters as transformers' Trainer does: biases and the gains of norms do not decay.
func Groups(params []*grad.Param, weightDecay float64) []Group {
	g := []Group{{WeightDecay: weightDecay}, {}}
	for _, p := range params {
		if decays(p.Name) {
			g[0].Params = append(g[0].Params, p)
		} else {
			g[1].Params = append(g[1].Params, p)
		}
	}
	return g
}

func decays(name string) bool {
	n := strings.ToLower(name)
	if strings.HasSuffix(n, "bias") {
		return false
	}
	if !strings.HasSuffix(n, ".weight") {
		return true
	}
	for _, part := range strings.Split(n, ".") {
		if strings.Contains(part, "norm") || part == "ln_1" || part == "ln_2" || part == "ln_f" || part == "ln_tuning_layers" {
			return false
		}
	}
	return true
}

// Optimizer changes parameters by their gradients. State is what a checkpoint must hold beside the parameters.
type Optimizer interface {
	// Step applies the gradients, each multiplied by gradScale (clipping), with learning rate lr. It does not clear them.
	Step(k backend.Kernels, lr float64, gradScale float32)
	// State lists the moments as f32 tensors named "<prefix>.<parameter>"; their storage is the optimiser's own.
	State() []tensor.Tensor
	// Steps is the number of steps done; SetSteps restores it.
	Steps() int
	SetSteps(n int)
}

// AdamW is Adam with decoupled weight decay (Loshchilov & Hutter, 2019): p -= lr·wd·p, then the moments with bias correction.
type AdamW struct {
	groups       []Group
	m, v         [][]float32
	beta1, beta2 float32
	eps          float32
	step         int
}

// NewAdamW allocates two moments per parameter of groups, which must be trainable already.
func NewAdamW(groups []Group, beta1, beta2, eps float64) *AdamW {
	o := &AdamW{groups: groups, beta1: float32(beta1), beta2: float32(beta2), eps: float32(eps)}
	for _, g := range groups {
		for _, p := range g.Params {
			o.m = append(o.m, make([]float32, len(p.Grad)))
			o.v = append(o.v, make([]float32, len(p.Grad)))
		}
	}
	return o
}

// Step implements Optimizer.
func (o *AdamW) Step(k backend.Kernels, lr float64, gradScale float32) {
	o.step++
	i := 0
	for _, g := range o.groups {
		for _, p := range g.Params {
			k.AdamW(backend.AdamWArgs{
				P: p.Values(), G: p.Grad, M: o.m[i], V: o.v[i], LR: float32(lr * g.scale()), Beta1: o.beta1, Beta2: o.beta2,
				Eps: o.eps, WD: float32(g.WeightDecay), GradScale: gradScale, Step: o.step,
			})
			p.Changed()
			i++
		}
	}
}

// State implements Optimizer.
func (o *AdamW) State() []tensor.Tensor {
	var out []tensor.Tensor
	i := 0
	for _, g := range o.groups {
		for _, p := range g.Params {
			out = append(out, tensor.FromF32("m."+p.Name, o.m[i], len(o.m[i])), tensor.FromF32("v."+p.Name, o.v[i], len(o.v[i])))
			i++
		}
	}
	return out
}

// Steps implements Optimizer.
func (o *AdamW) Steps() int { return o.step }

// SetSteps implements Optimizer.
func (o *AdamW) SetSteps(n int) { o.step = n }

// SGD is stochastic gradient descent with momentum as torch.optim.SGD: buf = momentum·buf + g (first step: buf = g), p -= lr·buf.
// Weight decay is added to the gradient.
type SGD struct {
	groups   []Group
	buf      [][]float32
	momentum float32
	step     int
}

// NewSGD allocates one buffer per parameter of groups, which must be trainable already.
func NewSGD(groups []Group, momentum float64) *SGD {
	o := &SGD{groups: groups, momentum: float32(momentum)}
	for _, g := range groups {
		for _, p := range g.Params {
			o.buf = append(o.buf, make([]float32, len(p.Grad)))
		}
	}
	return o
}

// Step implements Optimizer.
func (o *SGD) Step(k backend.Kernels, lr float64, gradScale float32) {
	o.step++
	i := 0
	for _, g := range o.groups {
		for _, p := range g.Params {
			b, v := o.buf[i], p.Values()
			k.Scale(b, o.momentum) // zero before the first step, so that buf = g there
			k.Axpy(b, gradScale, p.Grad)
			if g.WeightDecay != 0 {
				k.Axpy(b, float32(g.WeightDecay), v)
			}
			k.Axpy(v, -float32(lr*g.scale()), b)
			p.Changed()
			i++
		}
	}
}

// State implements Optimizer.
func (o *SGD) State() []tensor.Tensor {
	var out []tensor.Tensor
	i := 0
	for _, g := range o.groups {
		for _, p := range g.Params {
			out = append(out, tensor.FromF32("momentum."+p.Name, o.buf[i], len(o.buf[i])))
			i++
		}
	}
	return out
}

// Steps implements Optimizer.
func (o *SGD) Steps() int { return o.step }

// SetSteps implements Optimizer.
func (o *SGD) SetSteps(n int) { o.step = n }

func (g Group) scale() float64 {
	if g.Scale == 0 {
		return 1
	}
	return g.Scale
}

// GradNorm is the L2 norm of all gradients together, accumulated in float64 in the order of params.
func GradNorm(k backend.Kernels, params []*grad.Param) float64 {
	var s float64
	for _, p := range params {
		s += k.SumSquares(p.Grad)
	}
	return math.Sqrt(s)
}

// ClipScale is the factor that brings a gradient of the given norm down to at most limit, as torch's clip_grad_norm_: limit/(norm+1e-6)
// when that is below 1. A limit of 0 means no clipping.
func ClipScale(norm, limit float64) float32 {
	if limit <= 0 {
		return 1
	}
	return float32(min(1, limit/(norm+1e-6)))
}

// checkFinite stops a run whose gradients have overflowed, before the weights are spoilt.
func checkFinite(norm, loss float64, step int) error {
	if math.IsNaN(norm) || math.IsInf(norm, 0) || math.IsNaN(loss) || math.IsInf(loss, 0) {
		return fmt.Errorf("step %d: loss %g and gradient norm %g are not finite; lower the learning rate", step, loss, norm)
	}
	return nil
}
