package main

import (
	"fmt"
	"io"
)

// print writes the tables of docs/base.md.
func (r *results) print(w io.Writer, base, teacher string) error {
	cell := func(part, set, model, method string) (float64, string) {
		g, ok := r.have[figure{Part: part, Set: set, Model: model, Method: method}.key()]
		if !ok {
			return 0, "–"
		}
		return g.Score, fmt.Sprintf("%.1f", 100*g.Score)
	}
	for _, p := range []struct{ part, title string }{{"few", "16 examples a class, mean of three draws, heads over frozen encoders"}, {"full", "All rows (at most 5,000; 2,000 mails of spamassassin), heads over frozen encoders"}} {
		fmt.Fprintf(w, "\n%s\n\n| set | %s | %s | share of it | bag of words | its best of three |\n|---|---|---|---|---|---|\n", p.title, base, teacher)
		var shares []float64
		for _, s := range sets {
			a, as := cell(p.part, s.Name, base, "head")
			b, bs := cell(p.part, s.Name, teacher, "head")
			_, cs := cell(p.part, s.Name, bagName, bagFit)
			_, ds := cell(p.part, s.Name, bagName, bagBest)
			share := "–"
			if a > 0 && b > 0 {
				shares = append(shares, a/b)
				share = fmt.Sprintf("%.1f %%", 100*a/b)
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", s.Name, as, bs, share, cs, ds)
		}
		if len(shares) > 0 {
			fmt.Fprintf(w, "| mean | | | %.1f %% | | |\n", 100*mean(shares))
		}
	}
	fmt.Fprintf(w, "\nTuned\n\n| set | %[1]s, 16 a class (mean of three draws): lora | full | %[1]s, 1,000 rows: lora | full | %[2]s, 1,000 rows: lora | full |\n|---|---|---|---|---|---|---|\n", base, teacher)
	for _, s := range sets {
		fmt.Fprintf(w, "| %s |", s.Name)
		for _, c := range [][3]string{{"few tuned", base, "lora"}, {"few tuned", base, "full"}, {"1,000 rows", base, "lora"}, {"1,000 rows", base, "full"},
			{"1,000 rows", teacher, "lora"}, {"1,000 rows", teacher, "full"}} {
			_, text := cell(c[0], s.Name, c[1], c[2])
			fmt.Fprintf(w, " %s |", text)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\nTransfer to trec6\n\n| | %[1]s, 100 rows | %[2]s, 100 rows | %[1]s, 1,000 rows | %[2]s, 1,000 rows |\n|---|---|---|---|---|\n", base, teacher)
	for _, method := range []string{"random weights", "all layers", "embeddings frozen", "lower half frozen", "head (all frozen)"} {
		fmt.Fprintf(w, "| %s |", method)
		for _, part := range []string{"transfer 100", "transfer 1000"} {
			for _, m := range []string{base, teacher} {
				_, text := cell(part, "trec6", m, method)
				fmt.Fprintf(w, " %s |", text)
			}
		}
		fmt.Fprintln(w)
	}
	a, okA := r.have[figure{Part: "serving", Set: "32 tokens", Model: base, Method: "int8"}.key()]
	b, okB := r.have[figure{Part: "serving", Set: "32 tokens", Model: teacher, Method: "int8"}.key()]
	if okA && okB {
		fmt.Fprintf(w, "\nA million classifications of 32 tokens, int8, one thread: %s %.0f CPU seconds, %s %.0f (measured on %.0f and %.0f texts, scaled); %.1f times less.\n",
			base, a.Score, teacher, b.Score, a.Each[0], b.Each[0], b.Score/a.Score)
	}
	return nil
}
