package main

import (
	"github.com/spf13/cobra"

	"github.com/temper-ml/temper/core/peft"
)

// openBundle opens what MODEL names: a folder, a PEFT folder over its base, a hub reference or a built-in name.
func (a *app) openBundle(cmd *cobra.Command, ref string, o peft.OpenOptions) (*peft.Bundle, error) {
	if a.named(ref) {
		f, err := a.builtin(ref)
		if err != nil {
			return nil, err
		}
		return peft.OpenFolder(f, o)
	}
	path, err := a.modelPath(cmd, ref)
	if err != nil {
		return nil, err
	}
	return peft.Open(path, o)
}
