package token_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/token"
	"github.com/temper-ml/temper/tests/fixture"
)

const tinyWordPiece = `{"added_tokens":[{"id":0,"content":"[UNK]","special":true},{"id":9,"content":"<x>","lstrip":true,"rstrip":true,"single_word":true}],
"normalizer":{"type":"BertNormalizer","lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[C]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"[C]":{"ids":[1],"tokens":["[C]"]}}},
"decoder":{"type":"WordPiece"},"truncation":{"max_length":5,"stride":1},"padding":{"strategy":{"Fixed":7},"pad_id":0,"pad_token":"[UNK]"},
"model":{"type":"WordPiece","unk_token":"[UNK]","vocab":{"[UNK]":0,"[C]":1,"a":2,"##b":3,"##a":4,"é":5}}}`

const tinyBPE = `{"added_tokens":[],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Replace","pattern":{"Regex":" +"},"content":"_"},{"type":"Prepend","prepend":"_"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\w++|[^\\w]"},"behavior":"MergedWithNext"},{"type":"ByteLevel","add_prefix_space":true}]},
"post_processor":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},
"model":{"type":"BPE","unk_token":"a","fuse_unk":true,"byte_fallback":true,"vocab":{"a":0,"b":1,"ab":2,"aba":3,"<0xC3>":4,"Ġ":5},"merges":[["a","b"],["ab","a"]]}}`

const tinyUnigram = `{"normalizer":{"type":"NFD"},"pre_tokenizer":{"type":"Metaspace","prepend_scheme":"first"},"decoder":{"type":"Metaspace"},
"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0],["▁a",-1.5],["a",-2],["b",-3]]}}`

// hostile are files that are wrong in ways that have hurt other readers.
var hostile = []string{
	``, `null`, `[]`, `{}`, `{"model":null}`, `{"model":{}}`, `{"model":{"type":"BPE"}}`, `{"model":{"type":"BPE","vocab":{}}}`,
	`{"model":{"type":"WordPiece","vocab":{"a":-1}}}`, `{"model":{"type":"WordPiece","vocab":{"a":4294967296}}}`, `{"model":{"type":"WordPiece","vocab":{"a":1.5}}}`,
	`{"model":{"type":"WordPiece","vocab":{"a":2147483647}}}`, `{"model":{"type":"WordPiece","vocab":["a"]}}`,
	`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}}`, `{"model":{"type":"BPE","vocab":{"a":0,"":1},"merges":[["",""],["a",""]]}}`,
	`{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a"]]}}`, `{"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}`,
	`{"model":{"type":"Unigram","vocab":[["a"]]}}`, `{"model":{"type":"Unigram","vocab":[[1,2]]}}`, `{"model":{"type":"Unigram","unk_id":7,"vocab":[["a",1]]}}`,
	`{"model":{"type":"Unigram","unk_id":0,"vocab":[["a",1e400]]}}`, `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1e308],["b",1e308]]}}`,
	`{"normalizer":{"type":"Sequence","normalizers":[` + strings.Repeat(`{"type":"Sequence","normalizers":[`, 40) + strings.Repeat(`]}`, 40) + `]},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"////////"},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"normalizer":{"type":"Replace","pattern":{"Regex":"(a*)*$"},"content":"b"},"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}`,
	`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"((((((("},"behavior":"Isolated"},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":""},"behavior":"Isolated"},"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}`,
	`{"pre_tokenizer":{"type":"Split","pattern":{"String":""},"behavior":"Isolated"},"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}`,
	`{"padding":{"strategy":{"Fixed":1000000000000}},"model":{"type":"WordLevel","vocab":{}}}`, `{"truncation":{"max_length":-1},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"truncation":{"max_length":1,"stride":5},"model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0}}}`,
	`{"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}]},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"post_processor":{"type":"Sequence","processors":[{"type":"TemplateProcessing","single":[]},{"type":"BertProcessing","sep":["a",0],"cls":["b",1]}]},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"added_tokens":[{"id":2147483647,"content":"a"},{"id":0,"content":""}],"model":{"type":"WordLevel","vocab":{}}}`,
	`{"decoder":{"type":"Strip","content":"ab"},"model":{"type":"WordLevel","vocab":{}}}`,
	`{"decoder":{"type":"Strip","content":"a","start":9223372036854775807},"model":{"type":"WordLevel","vocab":{"aaa":0}}}`,
	tinyWordPiece, tinyBPE, tinyUnigram,
}

var oddTexts = []string{
	"", " ", "a", "ab aba", "a<x> b", "é e\u0301", "\xff\xfe", "a\xc3", "\u0000\ufffd", "你好", "👨\u200d👩", strings.Repeat("\u0301", 200), strings.Repeat("a", 300),
	"\r\n\t", "▁a ▁", "'s 'LL", "½ ﬁ ẞ İ",
}

// exercise does all that can be done with a tokenizer and checks what must always hold.
func exercise(t *testing.T, tok *token.Tokenizer, text, pair string) {
	for _, opt := range []token.Options{{}, {NoLimits: true}, {NoLimits: true, NoSpecial: true, SpecialAsText: true}} {
		if e, err := tok.Encode(text, opt); err == nil {
			checkEncoding(t, &e, text)
			_ = tok.Decode(e.IDs, true)
			checkStream(t, tok, e.IDs)
		}
		if e, err := tok.EncodePair(text, pair, opt); err == nil {
			checkEncoding(t, &e, text, pair)
		}
	}
	if e, err := tok.Encode(text, token.Options{NoLimits: true}); err == nil {
		require.Equal(t, append([]int32{}, e.IDs...), tok.AppendIDs([]int32{}, text, true), "AppendIDs and Encode differ on %q", text)
	}
	_ = tok.Decode([]int32{-1, 0, 1, 1 << 30}, false)
}

func checkEncoding(t *testing.T, e *token.Encoding, texts ...string) {
	n := e.Len()
	for _, l := range []int{len(e.Tokens), len(e.TypeIDs), len(e.Offsets), len(e.Runes), len(e.Words), len(e.Sequences), len(e.SpecialMask), len(e.AttentionMask)} {
		require.Equal(t, n, l)
	}
	for i, o := range e.Offsets {
		size := 0
		if s := e.Sequences[i]; s >= 0 {
			size = len(texts[s])
		}
		require.True(t, 0 <= o.Start && o.Start <= o.End && o.End <= size, "offsets %v in %d bytes", o, size)
	}
	for i := range e.Overflowing {
		checkEncoding(t, &e.Overflowing[i], texts...)
	}
}

func checkStream(t *testing.T, tok *token.Tokenizer, ids []int32) {
	s := tok.Stream(false)
	for _, id := range ids {
		require.True(t, utf8.ValidString(s.Next(id)), "a stream split a character")
	}
	require.True(t, utf8.ValidString(s.Flush()))
}

func TestHostileFiles(t *testing.T) {
	for _, file := range hostile {
		tok, err := token.Load([]byte(file))
		if err != nil {
			assert.Contains(t, err.Error(), "tokenizer.json", "errors name the file")
			continue
		}
		for _, text := range oddTexts {
			exercise(t, tok, text, "b a")
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, file := range hostile {
		f.Add([]byte(file), "a b")
	}
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		if len(file) > 1<<16 || len(text) > 1<<10 {
			return
		}
		var tok *token.Tokenizer
		var err error
		// Tables of normalizers and of the word cache are made at first use, whatever the size of the file.
		fixture.Bounded(t, len(file), 512, 4<<20, func() { tok, err = token.Load(file) })
		if err != nil {
			return
		}
		exercise(t, tok, text, "x y")
		saved, err := tok.Save()
		require.NoError(t, err)
		_, err = token.Load(saved)
		require.NoError(t, err, "what was saved does not load")
	})
}

func FuzzText(f *testing.F) {
	for _, text := range oddTexts {
		f.Add(text, "b")
	}
	var toks []*token.Tokenizer
	for _, file := range []string{tinyWordPiece, tinyBPE, tinyUnigram} {
		tok, err := token.Load([]byte(file))
		require.NoError(f, err)
		toks = append(toks, tok)
	}
	f.Fuzz(func(t *testing.T, text, pair string) {
		if len(text)+len(pair) > 1<<12 {
			return
		}
		for _, tok := range toks {
			exercise(t, tok, text, pair)
		}
	})
}

func FuzzGGUF(f *testing.F) {
	f.Add("llama", "", "a\nb\n▁a\n<0x41>\n</s>", "\x01\x01\x01\x06\x03", "a b", " a\nb")
	f.Add("gpt2", "llama-bpe", "a\nb\nab\nĠ", "", "a b", "ab 12")
	f.Add("gpt2", "gpt-2", "a\nb\nab\nba\naba\nabab", "", "a b\nb a\nab a\nab ab\na ba\nba b\na b", "abab abba")
	f.Add("bert", "", "[UNK]\n▁a\nb", "\x02\x01\x01", "", "ab")
	f.Add("t5", "", "<unk>\n▁a\nb", "\x02\x01\x01", "", "ab")
	f.Fuzz(func(t *testing.T, model, pre, tokens, types, merges, text string) {
		g := token.GGUF{Model: model, Pre: pre, Tokens: strings.Split(tokens, "\n"), Merges: strings.Split(merges, "\n"), BOS: 0, EOS: -1, UNK: 0, SEP: -1, PAD: -1, CLS: -1, MASK: -1, EOT: -1}
		g.Scores = make([]float32, len(g.Tokens))
		for i := range g.Scores {
			g.Scores[i] = -float32(i)
		}
		if len(types) == len(g.Tokens) {
			for _, c := range []byte(types) {
				g.Types = append(g.Types, int32(c))
			}
		}
		if len(text) > 1<<12 {
			return
		}
		tok, err := token.FromGGUF(g)
		if err != nil {
			return
		}
		exercise(t, tok, text, "b a")
	})
}

// TestMemory holds Load to the bound that its documentation states.
func TestMemory(t *testing.T) {
	big := func(n int) []byte {
		ids := map[string]int{}
		for i := range n {
			ids[string(rune('a'+i%26))+string(rune(0x100+i))] = i * 1000 // far apart on purpose
		}
		vocab, err := json.Marshal(ids)
		require.NoError(t, err)
		return []byte(`{"model":{"type":"WordPiece","vocab":` + string(vocab) + `}}`)
	}
	files := [][]byte{big(20000)}
	if raw, err := os.ReadFile(filepath.Join(fixture.MiniLM(t), "tokenizer.json")); err == nil {
		files = append(files, raw)
	}
	for _, file := range files {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tok, err := token.Load(file)
		require.NoError(t, err)
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		assert.Less(t, used, uint64(40*len(file)), "loading %d bytes took %d", len(file), used)
		runtime.KeepAlive(tok)
	}
}
