package data_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/data"
	"github.com/temper-ml/temper/tests/fixture"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("long ", 200_000)
	for _, c := range []struct {
		name, file, in string
		o              data.Options
		texts, pairs   []string
		labels         []string
	}{
		{name: "csv", file: "a.csv", in: "text,label\nhi,x\n\"a, \"\"b\"\"\nc\",y\n", texts: []string{"hi", "a, \"b\"\nc"}, labels: []string{"x", "y"}},
		{name: "bom and crlf", file: "a.csv", in: "\xef\xbb\xbflabel,text\r\nx,hi\r\n", texts: []string{"hi"}, labels: []string{"x"}},
		{name: "semicolons", file: "a.csv", in: "text;label\na, b;x\n", texts: []string{"a, b"}, labels: []string{"x"}},
		{name: "case of header", file: "a.csv", in: " Text ,LABEL\na,x\n", texts: []string{"a"}, labels: []string{"x"}},
		{name: "tsv keeps quotes", file: "a.tsv", in: "label\ttext\nx\t\"open quote\ny\tb \"\" c", texts: []string{"\"open quote", "b \"\" c"}, labels: []string{"x", "y"}},
		{name: "tsv crlf", file: "a.tsv", in: "label\ttext\r\nx\ta\r\n", texts: []string{"a"}, labels: []string{"x"}},
		{name: "tsv empty text", file: "a.tsv", in: "label\ttext\nx\t\n", texts: []string{""}, labels: []string{"x"}},
		{name: "long line", file: "a.tsv", in: "label\ttext\nx\t" + long, texts: []string{long}, labels: []string{"x"}},
		{name: "long csv", file: "a.csv", in: "label,text\nx," + long, texts: []string{long}, labels: []string{"x"}},
		{name: "jsonl", file: "a.jsonl", in: "{\"text\":\"a\",\"label\":1}\n\n{\"label\":2,\"text\":\"b\"}\r\n", texts: []string{"a", "b"}, labels: []string{"1", "2"}},
		{name: "json array", file: "a.json", in: "[\n{\"text\":\"a\",\"label\":true},\n{\"text\":\"b\",\"label\":\"no\"}]\n", texts: []string{"a", "b"}, labels: []string{"true", "no"}},
		{name: "sniffed jsonl", file: "-", in: "{\"text\":\"a\",\"label\":1}", texts: []string{"a"}, labels: []string{"1"}},
		{name: "sniffed tsv", file: "-", in: "text\tlabel\na\tx", texts: []string{"a"}, labels: []string{"x"}},
		{name: "sniffed csv", file: "-", in: "text,label\na,x", texts: []string{"a"}, labels: []string{"x"}},
		{name: "named columns", file: "a.csv", in: "body,text,class\na,b,c\n", o: data.Options{Text: "body", Label: "class"}, texts: []string{"a"}, labels: []string{"c"}},
		{name: "pairs", file: "a.csv", in: "sentence1,sentence2,label\na,b,c\n", texts: []string{"a"}, pairs: []string{"b"}, labels: []string{"c"}},
		{name: "unlabelled", file: "a.csv", in: "text\na\n", o: data.Options{Unlabelled: true}, texts: []string{"a"}},
		{name: "txt", file: "a.txt", in: "one\n\ntwo\r\n", texts: []string{"one", "two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := data.Parse(c.file, []byte(c.in), c.o)
			require.NoError(t, err)
			assert.Equal(t, c.texts, d.Texts)
			assert.Equal(t, c.pairs, d.Pairs)
			var labels []string
			for i := range d.Labels {
				labels = append(labels, d.LabelName(i))
			}
			assert.Equal(t, c.labels, labels)
			assert.Len(t, d.Rows, len(c.texts))
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file, in, want string
		o                    data.Options
	}{
		{name: "empty", file: "a.csv", want: "the file is empty"},
		{name: "blank", file: "a.tsv", in: "\xef\xbb\xbf \n\n", want: "the file is empty"},
		{name: "header only", file: "a.tsv", in: "text\tlabel\n", want: "the file has no examples"},
		{name: "no header", file: "a.csv", in: "good film,positive\nbad film,negative\n", want: `no column "text" for the text: the first line gives the columns "good film", "positive" (a file without a header? its first line must name the columns; --text-column names another one)`},
		{name: "no label", file: "a.csv", in: "text,class\na,b\n", want: `no column "label" for the label: the first line gives the columns "text", "class"`},
		{name: "named", file: "a.csv", in: "text,class\na,b\n", o: data.Options{Label: "kind"}, want: `no column "kind" for the label`},
		{name: "twice", file: "a.csv", in: "text,text,label\na,b,c\n", want: `names the column "text" twice`},
		{name: "binary", file: "a.csv", in: "text,label\na\x00b,c\n", want: "line 2: byte 12 is 0: this is binary data"},
		{name: "latin1", file: "a.tsv", in: "text\tlabel\na\tb\ncaf\xe9\tb\n", want: "line 3: byte 0xe9 is not valid UTF-8"},
		{name: "utf16", file: "a.csv", in: "\xff\xfet\x00", want: "UTF-16"},
		{name: "gzip", file: "a.csv", in: "\x1f\x8b\x08", want: "gzip"},
		{name: "zip", file: "a.csv", in: "PK\x03\x04", want: "zip"},
		{name: "fields", file: "a.csv", in: "text,label\na,b\na, b,c\n", want: "line 3: 3 fields, the header has 2 (a text with \",\" needs quotes"},
		{name: "tabs", file: "a.tsv", in: "text\tlabel\na\tb\tc\n", want: "line 2: 3 fields, the header has 2"},
		{name: "quote", file: "a.csv", in: "text,label\na \"b\" c,x\n", want: "line 2: bare \""},
		{name: "open quote", file: "a.csv", in: "text,label\n\"a,x\nb,y\n", want: "the field starts in line 2"},
		{name: "empty label", file: "a.tsv", in: "text\tlabel\na\t\n", want: "line 2: the label is empty"},
		{name: "number", file: "a.tsv", in: "text\tlabel\na\tb\n", o: data.Options{Numeric: true}, want: "line 2: expected a number as the label, got \"b\""},
		{name: "json", file: "a.jsonl", in: "{\"text\":\"a\",\"label\":1}\n{\"text\":", want: "line 2: bad JSON"},
		{name: "json list", file: "a.jsonl", in: "{\"text\":\"a\",\"label\":[1]}", want: `line 1: "label": expected a string, a number or a boolean`},
		{name: "json text", file: "a.jsonl", in: "{\"text\":5,\"label\":1}", want: `"text": expected a string, got 5`},
		{name: "json scalar", file: "a.jsonl", in: "5", want: "expected a JSON object"},
		{name: "json keys", file: "a.jsonl", in: "{\"body\":\"a\"}", want: `no key "text" for the text: the object has the one key "body"`},
		{name: "json mixed", file: "a.jsonl", in: "{\"text\":\"a\",\"label\":1}\n{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", want: "line 2: some rows are dialogues"},
		{name: "json array", file: "a.json", in: "[{\"text\":\"a\",\"label\":1},\n{\"text\":7}]", want: "line 2: "},
		{name: "json array cut", file: "a.json", in: "[{\"text\":\"a\",\"label\":1}", want: "JSON ends too early"},
		{name: "format", file: "a.csv", in: "x", o: data.Options{Format: "xml"}, want: "unknown data format \"xml\""},
		{name: "parquet", file: "a.parquet", in: "PAR1 and nothing more", want: "expected a Parquet file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := data.Parse(c.file, []byte(c.in), c.o)
			require.ErrorContains(t, err, c.want)
			assert.ErrorContains(t, err, c.file)
		})
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	_, err := data.Open(dir, data.Options{})
	require.ErrorContains(t, err, "is a folder")
	_, err = data.Open(filepath.Join(dir, "no.csv"), data.Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
	d, err := data.Open("-", data.Options{Stdin: strings.NewReader("text,label\na,b\n")})
	require.NoError(t, err)
	assert.Equal(t, "standard input", d.Name)
	assert.Equal(t, []string{"a"}, d.Texts)
}

func TestRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.txt")
	in := []byte("text,label\na,x\nb,y\nc,x\n")
	write := func(s string) { require.NoError(t, os.WriteFile(path, []byte(s), 0o644)) }
	write("2\r\n# a remark\n\n0\n")
	d, err := data.Parse("a.csv", in, data.Options{RowsFile: path})
	require.NoError(t, err)
	assert.Equal(t, []string{"c", "a"}, d.Texts)
	assert.Equal(t, []int{2, 0}, d.Rows)
	assert.Equal(t, []string{"x", "y"}, d.LabelNames, "labels of the whole file")
	for want, s := range map[string]string{
		"row 3 is outside its 3 rows (0 to 2)":     "3",
		"line 2: expected a row number from 0":     "1\nx",
		"expected a row number from 0, got \"-1\"": "-1",
		"it has none": "\n",
	} {
		write(s)
		_, err := data.Parse("a.csv", in, data.Options{RowsFile: path})
		require.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, path)
	}
}

func TestLabels(t *testing.T) {
	parse := func(labels ...string) *data.Dataset {
		s := "text\tlabel\n"
		for _, l := range labels {
			s += "t\t" + l + "\n"
		}
		d, err := data.Parse("a.tsv", []byte(s), data.Options{})
		require.NoError(t, err)
		return d
	}
	d := parse("10", "2", "10")
	assert.Equal(t, []string{"2", "10"}, d.LabelNames, "numbers stand in numeric order")
	assert.Equal(t, []int{1, 0, 1}, d.Labels)
	assert.Equal(t, []int{1, 2}, d.Counts())
	require.NoError(t, d.RequireClasses())
	require.ErrorContains(t, parse("a", "a").RequireClasses(), `all 2 have the label "a"`)

	for _, c := range []struct {
		name   string
		file   []string
		model  []string
		labels []int
		err    string
	}{
		{"reordered", []string{"b", "a"}, []string{"b", "a"}, []int{0, 1}, ""},
		{"case", []string{"Spam", "HAM"}, []string{"ham", "spam"}, []int{1, 0}, ""},
		{"subset", []string{"b"}, []string{"a", "b", "c"}, []int{1}, ""},
		{"numbers", []string{"1", "0"}, []string{"negative", "positive"}, []int{1, 0}, ""},
		{"LABEL_n", []string{"1", "0"}, []string{"LABEL_0", "LABEL_1"}, []int{1, 0}, ""},
		{"number beyond", []string{"2"}, []string{"no", "yes"}, nil, `unknown label "2", the model knows "no", "yes"`},
		{"unknown", []string{"a", "x"}, []string{"a", "b"}, nil, `row 1: unknown label "x", the model knows "a", "b"`},
		{"numbered model", []string{"1"}, []string{"2", "3"}, nil, "unknown label"},
		{"ambiguous", []string{"AB"}, []string{"ab", "Ab"}, nil, "unknown label"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := parse(c.file...)
			err := d.MapLabels(c.model)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.labels, d.Labels)
			assert.Equal(t, c.model, d.LabelNames)
		})
	}
}

func TestDialogues(t *testing.T) {
	d, err := data.Parse("a.jsonl", []byte(`{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]}
{"prompt":"p","completion":"c"}
{"instruction":"i","input":"x","output":"o"}`), data.Options{})
	require.NoError(t, err)
	assert.Equal(t, [][]data.Message{
		{{Role: "user", Content: "hi"}, {Role: "assistant", Content: "ho"}},
		{{Role: "user", Content: "p"}, {Role: "assistant", Content: "c"}},
		{{Role: "user", Content: "i\n\nx"}, {Role: "assistant", Content: "o"}},
	}, d.Messages)
	assert.Equal(t, 3, d.Len())
}

func TestConcat(t *testing.T) {
	a, err := data.Parse("a.tsv", []byte("text\tlabel\n1\tb\n"), data.Options{})
	require.NoError(t, err)
	b, err := data.Parse("b.tsv", []byte("text\tlabel\n2\ta\n"), data.Options{})
	require.NoError(t, err)
	d, err := data.Concat(a, b)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, d.LabelNames)
	assert.Equal(t, []int{1, 0}, d.Labels)
	c, err := data.Parse("c.txt", []byte("x"), data.Options{})
	require.NoError(t, err)
	_, err = data.Concat(a, c)
	require.ErrorContains(t, err, "columns differ")
}

// Row counts are those of the data sets' own table.
func TestRealFiles(t *testing.T) {
	dir := fixture.Data(t)
	for name, rows := range map[string]int{
		"sms_spam/train.tsv": 4535, "sst2/train_sentences.tsv": 6920, "banking77/test.tsv": 3080, "clinc150/train.tsv": 15000,
		"jigsaw_toxic_balanced/train.tsv": 9710, "spamassassin/dev.tsv": 575,
	} {
		d, err := data.Open(filepath.Join(dir, filepath.FromSlash(name)), data.Options{})
		require.NoError(t, err)
		assert.Equal(t, rows, d.Len(), name)
	}
	d, err := data.Open(filepath.Join(dir, "sst2", "train_sentences.tsv"), data.Options{RowsFile: filepath.Join(dir, "draws", "sst2-train_sentences-2000.txt")})
	require.NoError(t, err)
	assert.Equal(t, 2000, d.Len())
	assert.Equal(t, []string{"negative", "positive"}, d.LabelNames)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"text,label\n\"a\",b\n", "text\tlabel\na\tb\n", "{\"text\":\"a\",\"label\":1}\n", "[{\"text\":\"a\",\"label\":1}]", "x"} {
		for kind := range byte(5) {
			f.Add(kind, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		format := []string{"", "csv", "tsv", "jsonl", "txt"}[kind%5]
		if format == "" && strings.HasPrefix(string(b), "PAR1") {
			return // that library is not ours to fuzz
		}
		d, err := data.Parse("f", b, data.Options{Format: format, Unlabelled: kind >= 128})
		if err != nil {
			return
		}
		require.Len(t, d.Rows, d.Len())
		require.True(t, d.Labels == nil || len(d.Labels) == d.Len())
		require.True(t, d.Pairs == nil || len(d.Pairs) == d.Len())
	})
}
