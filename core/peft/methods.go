package peft

import (
	"fmt"
	"strings"
)

// methods are the everyday names, in the order they are listed in.
var methods = []struct {
	name string
	kind Type
	set  func(*Config)
}{
	{"lora", LoRA, nil},
	{"rslora", LoRA, func(c *Config) { c.RSLoRA = true }},
	{"dora", LoRA, func(c *Config) { c.DoRA = true }},
	{"adalora", AdaLoRA, nil},
	{"vera", VeRA, nil},
	{"ia3", IA3, nil},
	{"oft", OFT, nil},
	{"boft", BOFT, nil},
	{"ln", LNTuning, nil},
	{"bitfit", BitFit, nil},
	{"adapter", Bottleneck, nil},
	{"prefix", PrefixTuning, nil},
	{"prompt", PromptTuning, nil},
	{"p-tuning", PTuning, nil},
}

// MethodNames are the names that Method takes.
func MethodNames() []string {
	out := make([]string, len(methods))
	for i, m := range methods {
		out[i] = m.name
	}
	return out
}

// Method returns the settings of a method by its everyday name.
func Method(name string) (Config, error) {
	for _, m := range methods {
		if m.name == name {
			c, err := Default(m.kind)
			if err == nil && m.set != nil {
				m.set(&c)
			}
			return c, err
		}
	}
	return Config{}, fmt.Errorf("unknown method %q: expected one of %s", name, strings.Join(MethodNames(), ", "))
}

// LearningRate is the peak rate that suits a method on encoders of MiniLM's size: the fewer the parameters, the higher.
func LearningRate(method string) float64 {
	switch method {
	case "full":
		return 2e-5
	case "lora", "qlora", "rslora", "dora", "adapter":
		return 5e-4
	case "ia3", "vera", "prompt", "p-tuning":
		return 5e-3
	case "prefix":
		return 2e-3
	}
	return 1e-3
}
