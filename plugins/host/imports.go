package host

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/plugins/abi"
)

type stateKey struct{}

// callState is what an instance's imports work with during a call.
type callState struct {
	plugin *Plugin
	reqs   []attack.Request
	first  int
	victim attack.Victim
	stderr []byte
	clock  uint64
	random *attack.Rand
	fuel   api.MutableGlobal
}

// pay charges the guest for a question: see "Fuel" in plugins/ABI.md.
func (s *callState) pay(bytes uint32) {
	if s.fuel == nil {
		return
	}
	left := int64(s.fuel.Get()) - callCost - int64(bytes)/8
	s.fuel.Set(uint64(left))
	if left < 0 {
		panic(ErrFuel)
	}
}

func (s *callState) begin(reqs []attack.Request, first int, v attack.Victim) {
	s.reqs, s.first, s.victim, s.stderr, s.clock = reqs, first, v, nil, 0
	s.random = attack.NewRand(reqs[0].Seed)
}

func (s *callState) end() { s.reqs, s.victim = nil, nil }

func (s *callState) lastWords() string { return string(s.stderr) }

func state(ctx context.Context) *callState {
	s, _ := ctx.Value(stateKey{}).(*callState)
	if s == nil {
		return &callState{}
	}
	return s
}

const (
	wasi    = "wasi_snapshot_preview1"
	errnoOK = 0
	badFile = 8
	// callCost is what calling an import costs the guest, in fuel, beside one unit per 8 bytes of its answer.
	callCost = 100
)

// accepted tells whether an import is in the contract.
func accepted(module, name string) bool {
	switch module {
	case "temper":
		_, ok := questions[name]
		return ok || name == "log"
	case wasi:
		_, ok := wasiParams[name]
		return ok
	case "env":
		return name == "abort"
	}
	return false
}

// questions are the imports that answer with bytes: how many parameters each has, and what it does. The last two parameters are always
// the place for the answer and its size.
var questions = map[string]struct {
	params int
	answer func(ctx context.Context, s *callState, m api.Memory, a []uint32, room uint32) ([]byte, int32)
}{
	"score": {5, score}, "importance": {8, importance}, "nearest": {5, nearest}, "fill": {7, fill}, "tokenize": {4, tokenize},
}

// provide instantiates the host's modules in a runtime.
func provide(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder("temper")
	for name, q := range questions {
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			args := make([]uint32, q.params)
			for i := range args {
				args[i] = uint32(stack[i])
			}
			out, room := args[q.params-2], args[q.params-1]
			s := state(ctx)
			s.pay(0)
			answer, code := q.answer(ctx, s, mod.Memory(), args[:q.params-2], room)
			s.pay(uint32(len(answer)))
			if code < 0 {
				stack[0] = api.EncodeI32(code)
				return
			}
			if code > 0 { // the size is known, and there is no room
				stack[0] = uint64(uint32(code))
				return
			}
			if uint64(len(answer)) <= uint64(room) && !mod.Memory().Write(out, answer) {
				stack[0] = api.EncodeI32(abi.BadArgument)
				return
			}
			stack[0] = uint64(uint32(len(answer)))
		}), i32s(q.params), i32s(1)).Export(name)
	}
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
		s := state(ctx)
		s.pay(min(uint32(stack[1]), stderrLimit))
		text, ok := mod.Memory().Read(uint32(stack[0]), min(uint32(stack[1]), stderrLimit))
		if ok && s.plugin != nil && s.plugin.opts.Log != nil && utf8.Valid(text) {
			s.plugin.opts.Log(string(text))
		}
	}), i32s(2), nil).Export("log")
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}

	b = r.NewHostModuleBuilder(wasi)
	for name, params := range wasiParams {
		result := []api.ValueType{api.ValueTypeI32}
		if name == "proc_exit" {
			result = nil
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			s := state(ctx)
			s.pay(0)
			code := wasiCall(s, name, mod.Memory(), stack)
			if name == "proc_exit" {
				panic(errors.New("the guest ended itself"))
			}
			stack[0] = uint64(code)
		}), params, result).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}

	b = r.NewHostModuleBuilder("env")
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
		panic(errors.New("the guest aborted: " + utf16String(mod.Memory(), uint32(stack[0]))))
	}), i32s(4), nil).Export("abort")
	_, err := b.Instantiate(ctx)
	return err
}

func i32s(n int) []api.ValueType { return slices.Repeat([]api.ValueType{api.ValueTypeI32}, n) }

// utf16String reads an AssemblyScript string: its size in bytes is the u32 before it.
func utf16String(m api.Memory, at uint32) string {
	if at < 4 {
		return "no message"
	}
	n, ok := m.ReadUint32Le(at - 4)
	if !ok {
		return "no message"
	}
	b, ok := m.Read(at, min(n, 512)&^1)
	if !ok {
		return "no message"
	}
	out := make([]rune, 0, len(b)/2)
	for i := 0; i+1 < len(b); i += 2 {
		out = append(out, rune(binary.LittleEndian.Uint16(b[i:])))
	}
	return string(out)
}

func readText(m api.Memory, at, n uint32) (string, bool) {
	b, ok := m.Read(at, n)
	if !ok || !utf8.Valid(b) {
		return "", false
	}
	return string(b), true
}

func failure(err error) int32 {
	if errors.Is(err, attack.ErrBudget) {
		return abi.OverBudget
	}
	return abi.Failed
}

func score(ctx context.Context, s *callState, m api.Memory, a []uint32, room uint32) ([]byte, int32) {
	if s.victim == nil {
		return nil, abi.Unavailable
	}
	b, ok := m.Read(a[1], a[2])
	if !ok || int64(a[0]) >= int64(len(s.reqs)) {
		return nil, abi.BadArgument
	}
	r := abi.Reader{B: b}
	texts := r.Strings()
	if r.Err != nil || len(r.B) != 0 {
		return nil, abi.BadArgument
	}
	need := uint64(len(texts)) * uint64(len(s.victim.Labels())) * 4
	if need > abi.MaxAnswer {
		return nil, abi.BadArgument
	}
	if need > uint64(room) {
		return nil, int32(need)
	}
	if len(texts) == 0 {
		return nil, 0
	}
	rows, err := s.victim.Scores(attack.ForRequest(ctx, s.first+int(a[0])), texts)
	if err != nil {
		return nil, failure(err)
	}
	out := make([]byte, 0, need)
	for _, row := range rows {
		out = abi.AppendFloats(out, row)
	}
	if uint64(len(out)) != need {
		return nil, abi.Failed
	}
	return out, 0
}

func importance(ctx context.Context, s *callState, m api.Memory, a []uint32, room uint32) ([]byte, int32) {
	g, ok := s.victim.(attack.GradientVictim)
	if !ok {
		return nil, abi.Unavailable
	}
	text, ok := readText(m, a[1], a[2])
	if !ok || int64(a[0]) >= int64(len(s.reqs)) || int64(a[3]) >= int64(len(s.victim.Labels())) || a[5] > abi.MaxAnswer/8 {
		return nil, abi.BadArgument
	}
	b, ok := m.Read(a[4], a[5]*8)
	if !ok {
		return nil, abi.BadArgument
	}
	r := abi.Reader{B: b}
	spans := r.Spans(int(a[5]), text)
	if r.Err != nil {
		return nil, abi.BadArgument
	}
	if a[5]*4 > room {
		return nil, int32(a[5] * 4)
	}
	row, err := g.SpanImportance(attack.ForRequest(ctx, s.first+int(a[0])), text, int(a[3]), spans)
	if err != nil || len(row) != len(spans) {
		return nil, failure(err)
	}
	return abi.AppendFloats(nil, row), 0
}

func nearest(ctx context.Context, s *callState, m api.Memory, a []uint32, _ uint32) ([]byte, int32) {
	v, ok := s.victim.(attack.Neighbours)
	if !ok {
		return nil, abi.Unavailable
	}
	word, ok := readText(m, a[0], a[1])
	if !ok {
		return nil, abi.BadArgument
	}
	list, err := v.Nearest(ctx, word, int(min(a[2], 1000)))
	if err != nil {
		return nil, failure(err)
	}
	return abi.AppendStrings(nil, list), 0
}

func fill(ctx context.Context, s *callState, m api.Memory, a []uint32, _ uint32) ([]byte, int32) {
	v, ok := s.victim.(attack.Masker)
	if !ok {
		return nil, abi.Unavailable
	}
	text, ok := readText(m, a[0], a[1])
	if !ok || a[2] > a[3] || a[3] > a[1] {
		return nil, abi.BadArgument
	}
	list, err := v.Fill(ctx, text, attack.Span{Start: int(a[2]), End: int(a[3])}, int(min(a[4], 1000)))
	if err != nil {
		return nil, failure(err)
	}
	return abi.AppendCandidates(nil, list), 0
}

func tokenize(_ context.Context, s *callState, m api.Memory, a []uint32, _ uint32) ([]byte, int32) {
	v, ok := s.victim.(attack.TokenVictim)
	if !ok {
		return nil, abi.Unavailable
	}
	text, ok := readText(m, a[0], a[1])
	if !ok {
		return nil, abi.BadArgument
	}
	spans, tokens := v.Tokens(text)
	return abi.AppendTokens(nil, spans, tokens), 0
}

var wasiParams = func() map[string][]api.ValueType {
	i, l := api.ValueTypeI32, api.ValueTypeI64
	return map[string][]api.ValueType{
		"args_get": i32s(2), "args_sizes_get": i32s(2), "clock_res_get": i32s(2), "clock_time_get": {i, l, i}, "environ_get": i32s(2),
		"environ_sizes_get": i32s(2), "fd_close": i32s(1), "fd_fdstat_get": i32s(2), "fd_fdstat_set_flags": i32s(2), "fd_filestat_get": i32s(2),
		"fd_prestat_dir_name": i32s(3), "fd_prestat_get": i32s(2), "fd_read": i32s(4), "fd_seek": {i, l, i, i}, "fd_write": i32s(4),
		"path_open": {i, i, i, i, i, l, l, i, i}, "poll_oneoff": i32s(4), "proc_exit": i32s(1), "random_get": i32s(2), "sched_yield": nil,
	}
}()

// wasiCall is the whole of WASI that a guest gets: see plugins/ABI.md.
func wasiCall(s *callState, name string, m api.Memory, a []uint64) uint32 {
	arg := func(i int) uint32 { return uint32(a[i]) }
	switch name {
	case "args_sizes_get", "environ_sizes_get":
		m.WriteUint32Le(arg(0), 0)
		m.WriteUint32Le(arg(1), 0)
	case "args_get", "environ_get", "sched_yield", "proc_exit":
	case "clock_res_get":
		m.WriteUint64Le(arg(1), 1000)
	case "clock_time_get":
		m.WriteUint64Le(arg(2), 1_000_000_000+s.clock)
		s.clock += 1000
	case "random_get":
		if s.random == nil {
			s.random = attack.NewRand(0)
		}
		b, ok := m.Read(arg(0), arg(1))
		if !ok {
			return 21 // EFAULT
		}
		s.pay(arg(1))
		var word [8]byte
		for i := range b {
			if i%8 == 0 {
				binary.LittleEndian.PutUint64(word[:], s.random.Uint64())
			}
			b[i] = word[i%8]
		}
	case "fd_write":
		if arg(0) != 1 && arg(0) != 2 {
			return badFile
		}
		total := uint32(0)
		for i := range min(arg(2), 64) {
			at, ok1 := m.ReadUint32Le(arg(1) + 8*i)
			n, ok2 := m.ReadUint32Le(arg(1) + 8*i + 4)
			if !ok1 || !ok2 {
				return 21
			}
			if b, ok := m.Read(at, n); ok && len(s.stderr) < stderrLimit {
				s.stderr = append(s.stderr, b[:min(len(b), stderrLimit-len(s.stderr))]...)
			}
			total += n
		}
		m.WriteUint32Le(arg(3), total)
	case "poll_oneoff":
		// Every subscription fires at once: an event is 32 bytes, user data first.
		n := min(arg(2), 64)
		for i := range n {
			data, _ := m.ReadUint64Le(arg(0) + 48*i)
			kind, _ := m.ReadByte(arg(0) + 48*i + 8)
			m.WriteUint64Le(arg(1)+32*i, data)
			m.WriteUint64Le(arg(1)+32*i+8, uint64(kind)<<16)
			m.WriteUint64Le(arg(1)+32*i+16, 0)
			m.WriteUint64Le(arg(1)+32*i+24, 0)
		}
		m.WriteUint32Le(arg(3), n)
	case "fd_fdstat_get":
		if arg(0) > 2 {
			return badFile
		}
		m.WriteUint64Le(arg(1), 2) // a character device
		m.WriteUint64Le(arg(1)+8, 0)
		m.WriteUint64Le(arg(1)+16, 0)
	case "fd_fdstat_set_flags":
		if arg(0) > 2 {
			return badFile
		}
	case "path_open":
		return 76 // not capable
	default:
		return badFile
	}
	return errnoOK
}
