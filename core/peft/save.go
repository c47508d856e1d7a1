package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/temper-ml/temper/core/checkpoint"
	"github.com/temper-ml/temper/core/grad"
	"github.com/temper-ml/temper/core/model"
	"github.com/temper-ml/temper/core/tensor"
)

// Tensors are what adapter_model.safetensors holds.
func (m *Model) Tensors() ([]tensor.Tensor, error) {
	var out []tensor.Tensor
	add := func(name string, p *grad.Param) {
		t := p.T
		t.Name = name
		out = append(out, t)
	}
	for _, l := range m.layers {
		for _, p := range l.method.params() {
			add(p.Name, p)
		}
	}
	for _, e := range m.tables {
		add(e.a.Name, e.a)
		add(e.b.Name, e.b)
		add(e.baseName(), e.e.W) // peft saves the table itself beside its adapter
	}
	for _, p := range m.constant {
		add(p.Name, p)
	}
	if m.prompt != nil {
		ts, err := m.prompt.file(m)
		if err != nil {
			return nil, err
		}
		out = append(out, ts...)
	}
	for _, s := range m.saved {
		if !s.enabled {
			t := s.tuned
			t.Name = s.name
			out = append(out, t)
			continue
		}
		add(s.name, s.p)
	}
	return out, nil
}

// Save writes adapter_config.json and adapter_model.safetensors as peft does.
func (m *Model) Save(w *checkpoint.FolderWriter) error {
	cfg, err := m.cfg.Encode()
	if err != nil {
		return err
	}
	ts, err := m.Tensors()
	if err != nil {
		return err
	}
	if err := w.Safetensors(checkpoint.AdapterWeightsFile, ts, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return w.File(checkpoint.AdapterConfigFile, cfg)
}

// SetTensors fills the adapter with the values of src, which must hold exactly its tensors.
func (m *Model) SetTensors(src checkpoint.Source) error {
	used := map[string]bool{}
	set := func(p *grad.Param, name string) error {
		t, err := src.Tensor(name)
		if err != nil {
			return err
		}
		used[name] = true
		if !slices.Equal(t.Shape, p.T.Shape) {
			return fmt.Errorf("%s: expected shape %v, got %v", name, p.T.Shape, t.Shape)
		}
		v, err := t.F32()
		if err != nil {
			return err
		}
		copy(p.Values(), v)
		p.Changed()
		return nil
	}
	var errs []error
	for _, p := range slices.Concat(m.own(), m.constant) {
		if m.prompt == nil {
			errs = append(errs, set(p, p.Name))
		}
	}
	if m.prompt != nil {
		names, err := m.prompt.load(m, src)
		errs = append(errs, err)
		for _, n := range names {
			used[n] = true
		}
	}
	for _, s := range m.saved {
		errs = append(errs, set(s.p, s.name))
	}
	for _, e := range m.tables {
		t, err := src.Tensor(e.baseName())
		if errors.Is(err, checkpoint.ErrNoTensor) {
			continue
		}
		used[e.baseName()] = true
		errs = append(errs, err, e.setBase(t))
	}
	for _, n := range src.Names() {
		if !used[n] {
			errs = append(errs, fmt.Errorf("%s: unexpected tensor", n))
		}
	}
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("adapter weights: %w", errs[0])
	}
	return fmt.Errorf("adapter weights: %w (and %d more such faults)", errs[0], len(errs)-1)
}

// Load attaches the adapter of a PEFT folder to base.
func Load(base model.Model, f *checkpoint.Folder) (*Model, error) {
	b, err := f.File(checkpoint.AdapterConfigFile)
	if err != nil {
		return nil, err
	}
	cfg, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	src, err := f.AdapterSource()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	m, err := attach(base, cfg, 0, src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	return m, nil
}

// Freeze stops the training of the adapter; it computes the same, from less memory.
func (m *Model) Freeze() {
	for _, p := range m.Params() {
		p.Freeze()
	}
}

// saveAside writes the adapter as a PEFT folder inside a model folder; config.json beside it keeps the label names.
func (m *Model) saveAside(w *checkpoint.FolderWriter, config []byte) error {
	cfg, err := m.cfg.Encode()
	if err != nil {
		return err
	}
	ts, err := m.Tensors()
	if err != nil {
		return err
	}
	if err := w.Safetensors("adapter/"+checkpoint.AdapterWeightsFile, ts, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	if err := w.File("adapter/"+checkpoint.AdapterConfigFile, cfg); err != nil {
		return err
	}
	return w.File("adapter/"+checkpoint.ConfigFile, config)
}

func indent(b []byte) ([]byte, error) {
	var buf bytes.Buffer
	if err := json.Indent(&buf, b, "", "  "); err != nil {
		return nil, fmt.Errorf("%s: %w", checkpoint.ConfigFile, err)
	}
	buf.WriteByte('\n')
	return buf.Bytes(), nil
}
