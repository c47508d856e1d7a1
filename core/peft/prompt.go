package peft

import "fmt"

func newPrompt(m *Model, seed uint64) (prompt, error) {
	return nil, fmt.Errorf("peft_type %s is not supported", m.cfg.Type)
}
