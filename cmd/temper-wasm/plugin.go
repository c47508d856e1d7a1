package main

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/abi"
)

// pagePlugin is a plugin that the page runs under its own engine, by plugins/ABI.md.
type pagePlugin struct {
	name string
	e    *engine
	w    *watched
}

// Name implements attack.Perturber.
func (p *pagePlugin) Name() string { return p.name }

// Perturb implements attack.Perturber.
func (p *pagePlugin) Perturb(ctx context.Context, reqs []attack.Request, v attack.Victim) ([][]string, error) {
	if p.e.plugin == nil {
		return nil, errors.New("no page is there to run plugins")
	}
	body, err := abi.EncodeRequest(reqs)
	if err != nil {
		return nil, err
	}
	p.e.asked = &question{ctx: ctx, v: v, labels: len(v.Labels()), requests: len(reqs)}
	p.w.quiet = true
	out, err := p.e.plugin(p.name, body)
	p.e.asked, p.w.quiet = nil, false
	if err != nil {
		return nil, userError{err}
	}
	got, err := abi.DecodeAnswer(out, reqs)
	if err != nil {
		return nil, userError{err}
	}
	return got, nil
}

// question is who answers while a plugin runs.
type question struct {
	ctx              context.Context
	v                attack.Victim
	labels, requests int
}

// Results of a plugin's question, by plugins/ABI.md.
const (
	noCapability = -1
	noBudget     = -2
	badArguments = -3
	hostFailed   = -4
)

// answer takes a question as the page's plugin host writes it: one byte that names the import, three uint32 arguments, then an ABI message.
// What it returns starts with an int32: the length of the answer that follows, or a negative result.
func (q *question) answer(b []byte) []byte {
	code, out := q.try(b)
	if code == 0 {
		code = len(out)
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(int32(code))), out...)
}

func (q *question) try(b []byte) (code int, out []byte) {
	if q == nil || q.v == nil {
		return noCapability, nil
	}
	defer func() {
		if recover() != nil {
			code, out = hostFailed, nil
		}
	}()
	if len(b) < 13 {
		return badArguments, nil
	}
	arg := func(i int) int { return int(binary.LittleEndian.Uint32(b[1+4*i:])) }
	r := &abi.Reader{B: b[13:]}
	switch b[0] {
	case 's':
		texts := r.Strings()
		if r.Err != nil || arg(0) >= q.requests {
			return badArguments, nil
		}
		rows, err := q.v.Scores(attack.ForRequest(q.ctx, arg(0)), texts)
		switch {
		case errors.Is(err, attack.ErrBudget):
			return noBudget, nil
		case err != nil:
			return hostFailed, nil
		}
		for _, row := range rows {
			out = abi.AppendFloats(out, row)
		}
		return 0, out
	case 'i':
		v, ok := q.v.(attack.GradientVictim)
		if !ok {
			return noCapability, nil
		}
		text := r.String()
		spans := r.Spans(int(r.Uint32()), text)
		if r.Err != nil || arg(0) >= q.requests || arg(1) >= q.labels {
			return badArguments, nil
		}
		row, err := v.SpanImportance(attack.ForRequest(q.ctx, arg(0)), text, arg(1), spans)
		if err != nil {
			return hostFailed, nil
		}
		return 0, abi.AppendFloats(nil, row)
	case 'n':
		v, ok := q.v.(attack.EmbeddingVictim)
		if !ok {
			return noCapability, nil
		}
		word := r.String()
		if r.Err != nil {
			return badArguments, nil
		}
		words, err := v.Nearest(q.ctx, word, arg(0))
		if err != nil {
			return hostFailed, nil
		}
		return 0, abi.AppendStrings(nil, words)
	case 'f':
		v, ok := q.v.(attack.MaskVictim)
		if !ok {
			return noCapability, nil
		}
		text := r.String()
		if r.Err != nil || arg(0) > arg(1) || arg(1) > len(text) {
			return badArguments, nil
		}
		words, err := v.Fill(q.ctx, text, attack.Span{Start: arg(0), End: arg(1)}, arg(2))
		if err != nil {
			return hostFailed, nil
		}
		return 0, abi.AppendCandidates(nil, words)
	case 't':
		v, ok := q.v.(attack.TokenVictim)
		if !ok {
			return noCapability, nil
		}
		text := r.String()
		if r.Err != nil {
			return badArguments, nil
		}
		spans, tokens := v.Tokens(text)
		return 0, abi.AppendTokens(nil, spans, tokens)
	}
	return badArguments, nil
}
