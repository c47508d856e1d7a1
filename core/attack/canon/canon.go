// Package canon undoes disguises of text before a model sees it: invisible characters, compatibility forms, confusable letters, accents,
// letters set apart, leetspeak. It works through tokenizer.json: what it prepends to the normalizer is made of standard parts, so every
// reader of the format, transformers among them, sees the same model.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/temper-ml/temper/core/token"
)

// Options choose what is undone. Each costs something where the same characters are meant: see the fields.
type Options struct {
	// Invisible removes zero-width and bidirectional controls, soft hyphens, tags and other characters that do not show. Emoji made of
	// several parts lose their joiner.
	Invisible bool `json:"invisible"`
	// Compatibility applies NFKC: full-width, mathematical, enclosed and superscript forms become plain.
	Compatibility bool `json:"compatibility"`
	// Confusables turns letters of other scripts that look like Latin ones into those. For models of text in Latin script only: Cyrillic and
	// Greek text suffers.
	Confusables bool `json:"confusables"`
	// Accents removes marks. Models of uncased English do so anyway; in most other languages it changes words.
	Accents bool `json:"accents"`
	// Spacing joins three and more single letters that are set apart by one space, dot, hyphen, underscore or asterisk: f r e e.
	Spacing bool `json:"spacing"`
	// Leetspeak reads digits and signs within words as letters: fr33, p4yp4l, $ex. Names such as mp3 and i18n suffer.
	Leetspeak bool `json:"leetspeak"`
	// Numbers reads every word with two digits or more, letters among them or not, as the same number, so that 150p, 15Op and 08712400603 are one.
	// For models that care whether there is a number and not which, filters of spam for example; models must be trained so.
	Numbers bool `json:"numbers"`
}

// Latin is everything that is right for most models of English text.
func Latin() Options {
	return Options{Invisible: true, Compatibility: true, Confusables: true, Spacing: true, Leetspeak: true}
}

// ParseOptions reads a list such as "invisible,confusables"; "all" is all but accents and numbers, "none" nothing.
func ParseOptions(list string) (Options, error) {
	var o Options
	for _, name := range strings.Split(list, ",") {
		switch strings.TrimSpace(name) {
		case "all":
			o = Latin()
		case "none", "":
		case "invisible":
			o.Invisible = true
		case "compatibility":
			o.Compatibility = true
		case "confusables":
			o.Confusables = true
		case "accents":
			o.Accents = true
		case "spacing":
			o.Spacing = true
		case "leetspeak":
			o.Leetspeak = true
		case "numbers":
			o.Numbers = true
		default:
			return o, fmt.Errorf("canonicalisation %q, expected invisible, compatibility, confusables, accents, spacing, leetspeak, numbers, all or none", name)
		}
	}
	return o, nil
}

// part is one normalizer of tokenizer.json.
type part struct {
	Type    string   `json:"type"`
	Pattern *pattern `json:"pattern,omitempty"`
	Content *string  `json:"content,omitempty"`
}

type pattern struct {
	String string `json:"String,omitempty"`
	Regex  string `json:"Regex,omitempty"`
}

func replaceString(from, to string) part {
	return part{"Replace", &pattern{String: from}, &to}
}

func replaceRegex(from, to string) part {
	return part{"Replace", &pattern{Regex: from}, &to}
}

// hidden are the characters that Invisible removes, as a class of Oniguruma and of most other engines.
const hidden = `[\u00AD\u034F\u061C\u115F\u1160\u17B4\u17B5\u180B-\u180E\u200B-\u200F\u202A-\u202E\u2060-\u206F\u3164\uFE00-\uFE0F\uFEFF\uFFA0]`

// numbers are the words that Numbers reads alike.
const numbers = token.PatternNumbers

// leetPairs are read in this order; later ones see what earlier ones made.
var leetPairs = [][2]string{
	{"0", "o"}, {"1", "i"}, {"3", "e"}, {"4", "a"}, {"5", "s"}, {"7", "t"}, {"8", "b"}, {"9", "g"}, {"@", "a"}, {`\$`, "s"}, {"!", "i"}, {"€", "e"},
}

// Parts returns the normalizers in order, ready for a Sequence.
func (o Options) Parts() []json.RawMessage {
	var parts []part
	if o.Invisible {
		parts = append(parts, replaceRegex(unescape(hidden), ""))
	}
	if o.Confusables && o.Compatibility {
		parts = append(parts, replaceString("\u02db", "i")) // an ogonek alone, which NFKC would take apart
	}
	if o.Compatibility {
		parts = append(parts, part{Type: "NFKC"})
	}
	if o.Confusables {
		parts = append(parts, confusables()...)
	}
	if o.Accents {
		parts = append(parts, part{Type: "NFD"}, part{Type: "StripAccents"}, part{Type: "NFC"})
	}
	if o.Spacing {
		// A separator between two single letters, and the same separator before or after them with another single letter. All separators
		// of a run match at once, because what is around them is only looked at.
		const one, plain = `[A-Za-z@$!]`, `[A-Za-z0-9']`
		var ways []string
		for _, sep := range []string{" ", `\.`, "-", "_", `\*`} {
			ways = append(ways,
				`(?<=`+one+`)(?<!`+plain+one+`)`+sep+`(?=`+one+sep+one+`(?!`+plain+`))`,
				`(?<=`+one+sep+one+`)(?<!`+plain+one+sep+one+`)`+sep+`(?=`+one+`(?!`+plain+`))`)
		}
		parts = append(parts, replaceRegex(strings.Join(ways, "|"), ""))
	}
	if o.Leetspeak {
		for range 2 { // fr33: the second digit follows a letter only after the first one is read
			for _, p := range leetPairs {
				parts = append(parts, replaceRegex(`(?<=[A-Za-z])`+p[0]+`(?=[0-9@$!]{0,2}[A-Za-z])`, p[1]))
			}
		}
		for _, p := range leetPairs[:10] { // at the beginning of a word
			parts = append(parts, replaceRegex(`(?<![A-Za-z0-9@$!])`+p[0]+`(?=[A-Za-z]{2})`, p[1]))
		}
		// At the end, what is rarely a number there: fr33, hell0, extr@, word$.
		for _, p := range [][2]string{{"33", "ee"}, {"00", "oo"}, {`\$\$`, "ss"}} {
			parts = append(parts, replaceRegex(`(?<=[A-Za-z])`+p[0]+`(?![A-Za-z0-9])`, p[1]))
		}
		for _, p := range [][2]string{{"3", "e"}, {"0", "o"}, {"@", "a"}, {`\$`, "s"}} {
			parts = append(parts, replaceRegex(`(?<=[A-Za-z]{2})`+p[0]+`(?![A-Za-z0-9])`, p[1]))
		}
	}
	if o.Numbers {
		parts = append(parts, replaceRegex(numbers, "00"))
	}
	out := make([]json.RawMessage, len(parts))
	for i, p := range parts {
		out[i], _ = json.Marshal(p) // strings only: it cannot fail
	}
	return out
}

// unescape writes \uXXXX as the characters themselves, which every engine reads alike.
func unescape(s string) string {
	var out string
	if err := json.Unmarshal([]byte(`"`+s+`"`), &out); err != nil {
		panic(err)
	}
	return out
}

// Normalizer is the sequence of Parts as one normalizer of tokenizer.json.
func (o Options) Normalizer() json.RawMessage {
	b, _ := json.Marshal(map[string]any{"type": "Sequence", "normalizers": o.Parts()})
	return b
}

// members are the members of tokenizer.json in their usual order.
var members = []string{"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"}

// Prepend puts the canonicalisation before the normalizer of a tokenizer.json and returns the new file. What another call prepended is
// replaced, so the zero Options remove it.
func Prepend(tokenizer []byte, o Options) ([]byte, error) {
	var file map[string]json.RawMessage
	if err := json.Unmarshal(tokenizer, &file); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if file["model"] == nil {
		return nil, errors.New("tokenizer.json: no model")
	}
	before, err := split(file["normalizer"])
	if err != nil {
		return nil, err
	}
	var rest json.RawMessage = []byte("null")
	if len(before) > 0 {
		rest = before[0]
	}
	if parts := o.Parts(); len(parts) > 0 {
		list := []json.RawMessage{o.Normalizer()}
		if string(rest) != "null" {
			list = append(list, rest)
		}
		if rest, err = json.Marshal(map[string]any{"type": "Sequence", "normalizers": list}); err != nil {
			return nil, fmt.Errorf("tokenizer.json: %w", err)
		}
	}
	file["normalizer"] = rest
	return inOrder(file), nil
}

// Bare is a tokenizer.json without what Prepend put before its normalizer and without the misspellings that Typos added, and whether it had any. What
// Typos changed or left out of its own entries, and words that ReadAlike reads as others, stay so: nobody knows what they were.
func Bare(tokenizer []byte) ([]byte, bool, error) {
	had := false
	if _, ok := token.Strip(tokenizer); ok {
		t, err := parseWordPiece(tokenizer)
		if err != nil {
			return nil, false, fmt.Errorf("tokenizer.json: %w", err)
		}
		if tokenizer, err = t.rewrite(nil, nil); err != nil {
			return nil, false, fmt.Errorf("tokenizer.json: %w", err)
		}
		had = true
	}
	var file struct {
		Normalizer json.RawMessage `json:"normalizer"`
	}
	if err := json.Unmarshal(tokenizer, &file); err != nil {
		return nil, false, fmt.Errorf("tokenizer.json: %w", err)
	}
	own, err := split(file.Normalizer)
	if err != nil {
		return nil, false, err
	}
	if isOurs := len(own) == 0 && string(file.Normalizer) != "null" && len(file.Normalizer) > 0 || len(own) == 1 && !bytes.Equal(own[0], file.Normalizer); isOurs {
		had = true
		if tokenizer, err = Prepend(tokenizer, Options{}); err != nil {
			return nil, false, err
		}
	}
	return tokenizer, had, nil
}

// inOrder writes a tokenizer.json with its members in their usual order, the model last among them.
func inOrder(file map[string]json.RawMessage) []byte {
	var out bytes.Buffer
	keys := slices.Clone(members)
	var others []string
	for k := range file {
		if !slices.Contains(keys, k) {
			others = append(others, k)
		}
	}
	slices.Sort(others)
	out.WriteString("{")
	first := true
	for _, k := range slices.Concat(others, keys) {
		if file[k] == nil {
			continue
		}
		if !first {
			out.WriteString(",")
		}
		first = false
		name, _ := json.Marshal(k)
		fmt.Fprintf(&out, "\n  %s: %s", name, file[k])
	}
	out.WriteString("\n}\n")
	return out.Bytes()
}

// split takes a normalizer that Prepend made apart and returns what it was before; nothing for null.
func split(raw json.RawMessage) ([]json.RawMessage, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var n struct {
		Type        string            `json:"type"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return nil, fmt.Errorf("tokenizer.json: normalizer: %w", err)
	}
	if n.Type == "Sequence" && len(n.Normalizers) > 0 && len(n.Normalizers) <= 2 && ours(n.Normalizers[0]) {
		return n.Normalizers[1:], nil
	}
	return []json.RawMessage{raw}, nil
}

// ours tells whether a normalizer is one that some Options make.
func ours(raw json.RawMessage) bool {
	var compact struct {
		Type        string            `json:"type"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if json.Unmarshal(raw, &compact) != nil || compact.Type != "Sequence" {
		return false
	}
	for bits := range 128 {
		o := Options{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0, bits&16 != 0, bits&32 != 0, bits&64 != 0}
		parts := o.Parts()
		if len(parts) == 0 || len(parts) != len(compact.Normalizers) {
			continue
		}
		same := true
		for i := range parts {
			var a, b any
			if json.Unmarshal(parts[i], &a) != nil || json.Unmarshal(compact.Normalizers[i], &b) != nil {
				same = false
				break
			}
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if same = string(x) == string(y); !same {
				break
			}
		}
		if same {
			return true
		}
	}
	return false
}
