package peft

import (
	"fmt"
	"strings"

	"github.com/temper-ml/temper/core/tensor"
)

// MethodNames are the names that Method takes.
func MethodNames() []string {
	return []string{"lora", "rslora", "dora"}
}

// Method returns the settings of a method by its everyday name.
func Method(name string) (Config, error) {
	switch name {
	case "lora":
		return Default(LoRA)
	case "rslora":
		c, err := Default(LoRA)
		c.RSLoRA = true
		return c, err
	case "dora":
		c, err := Default(LoRA)
		c.DoRA = true
		return c, err
	}
	return Config{}, fmt.Errorf("unknown method %q: expected one of %s", name, strings.Join(MethodNames(), ", "))
}

// LearningRate is the peak rate that suits a method on encoders of MiniLM's size: the fewer the parameters, the higher.
func LearningRate(method string) float64 {
	switch method {
	case "full":
		return 2e-5
	case "lora", "rslora", "dora", "adalora":
		return 5e-4
	case "ia3", "vera", "prefix", "prompt", "p-tuning":
		return 5e-3
	}
	return 1e-3
}

// Budget returns what must run after each optimiser step of a run of the given length, and the tensors that it keeps: AdaLoRA's rank
// allocation. Other methods have none.
func (m *Model) Budget(steps int) (func(step int) error, []tensor.Tensor) { return nil, nil }
