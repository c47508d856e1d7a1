package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	dir := t.TempDir()
	write := func(name, rows string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(`{"rows":[`+rows+`]}`), 0o600))
		return path
	}
	a := write("a.json", `{"name":"infer f32 1x16","threads":1,"temper_best_ms":2,"peers_best_ms":{"ort":3},"fastest_peer":"ort","ratio":1.5,"target":1.15},
		{"name":"train <full>","threads":1,"ratio":9}`)
	b := write("b.json", `{"name":"infer f32 1x16","threads":1,"temper_best_ms":2.5,"peers_best_ms":{"ort":2.25},"fastest_peer":"ort","ratio":0.9,"target":1.15},
		{"name":"infer f32 1x16","threads":2,"error":"no"}`)
	var out bytes.Buffer
	plot := filepath.Join(dir, "p.svg")
	require.NoError(t, report([]string{"-rows", "infer,train", "-svg", plot, a, b}, &out))
	require.Contains(t, out.String(), "| infer f32 1x16 | 1 | 2.50 | 2.25 ort | **0.90** | 1.15 |\n")
	require.Equal(t, 4, strings.Count(out.String(), "\n"), "the later run counts, failed rows do not")
	raw, err := os.ReadFile(plot)
	require.NoError(t, err)
	d := xml.NewDecoder(bytes.NewReader(raw))
	for {
		if _, err := d.Token(); err != nil {
			require.True(t, errors.Is(err, io.EOF), "%v", err)
			break
		}
	}
	require.Error(t, report(nil, &out))
}
