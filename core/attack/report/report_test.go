package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"html"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/temper-ml/temper/core/attack"
	"github.com/temper-ml/temper/core/attack/report"
)

func sampleReports() []*attack.Report {
	a := &attack.Report{Recipe: "deepwordbug", Version: 1, Goal: "untargeted", Seed: 3, Labels: []string{"ham", "spam"}, Results: []attack.Result{
		{Row: 4, Status: attack.Won, Text: "free <b>money</b> now", Adversarial: "frеe <b>mon\u200bey</b> now", Label: 1, Predicted: 1, PredictedAfter: 0, Correct: true, Before: []float32{.1, .9}, After: []float32{.8, .2}, Queries: 12, Words: 3, Changed: 2},
		{Row: 5, Status: attack.Won, Text: "win a prize", Adversarial: "wn a prize", Label: 1, Predicted: 1, PredictedAfter: 0, Correct: true, Before: []float32{.4, .6}, After: []float32{.55, .45}, Queries: 3, Words: 3, Changed: 1},
		{Row: 6, Status: attack.Held, Text: "hello", Adversarial: "helo", Label: 0, Correct: true, Before: []float32{.9, .1}, After: []float32{.7, .3}, Queries: 30, Words: 1, Changed: 1, Rejected: map[string]int{"stop-words": 2}},
		{Row: 7, Status: attack.Skipped, Text: "odd", Label: 0, Predicted: 1, Before: []float32{.4, .6}, Queries: 1, Words: 1},
	}}
	b := &attack.Report{Recipe: "pruthi", Version: 1, Goal: "untargeted", Labels: a.Labels, Results: []attack.Result{{Row: 6, Status: attack.Held, Correct: true, Queries: 7, Text: "x", Adversarial: "x", Before: []float32{1, 0}, After: []float32{1, 0}}}}
	a.Summarise()
	b.Summarise()
	return []*attack.Report{a, b}
}

func TestFigures(t *testing.T) {
	a := sampleReports()[0]
	assert.InDelta(t, 0.75, a.CleanAccuracy, 1e-9)
	assert.InDelta(t, 0.25, a.AccuracyUnderAttack, 1e-9)
	assert.InDelta(t, 2.0/3, a.AttackSuccessRate, 1e-9)
	assert.InDelta(t, 15, a.AverageQueries, 1e-9)
	assert.InDelta(t, 12, a.MedianQueries, 1e-9)
	assert.InDelta(t, 1.5, a.AverageWordsChanged, 1e-9)
	assert.InDelta(t, 0.5, a.AccuracyAt(5), 1e-9)
	rows := report.ByLabel(a)
	require.Len(t, rows, 2)
	assert.InDelta(t, 0.5, rows[0].CleanAccuracy, 1e-9)
	assert.InDelta(t, 0, rows[1].AccuracyUnderAttack, 1e-9)
	assert.Equal(t, 4, report.MostFooled(a, 1)[0].Row)
}

func TestHTML(t *testing.T) {
	var b bytes.Buffer
	meta := report.Meta{Title: "Report <1>", Model: "m & co", Made: "today", Commands: []string{"temper attack"}, Costs: []report.Cost{{Step: "tune", Seconds: 2}}}
	require.NoError(t, report.WriteHTML(&b, sampleReports(), meta))
	s := b.String()
	for _, want := range []string{"Report &lt;1&gt;", "m &amp; co", "U+0435", "U+200B", "[U+200B]", "&lt;b&gt;", "<polyline", "<rect", "deepwordbug", "stop-words 2", "temper attack", "Departures"} {
		assert.True(t, strings.Contains(s, want) || strings.Contains(html.UnescapeString(s), want), "%s is missing", want)
	}
	assert.NotContains(t, s, "<b>money")
	assert.NotContains(t, s, "ZgotmplZ")
	for _, not := range []string{"http://", "https://", "<script", "src=", "@import", "url("} {
		assert.False(t, strings.Contains(s, not), "the page needs no network: %s", not)
	}
	var again bytes.Buffer
	require.NoError(t, report.WriteHTML(&again, sampleReports(), meta))
	assert.True(t, s == again.String(), "the same page again")
	d := xml.NewDecoder(strings.NewReader(s[strings.Index(s, "<svg"):strings.Index(s, "</svg>")] + "</svg>"))
	for {
		if _, err := d.Token(); err != nil {
			assert.EqualError(t, err, "EOF")
			break
		}
	}
	require.NoError(t, report.WriteHTML(&b, nil, report.Meta{}), "no reports at all")
}

func TestTablesAndData(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, report.WriteCSV(&b, sampleReports()))
	rows, err := csv.NewReader(&b).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 6)
	assert.Equal(t, []string{"deepwordbug", "4", "won", "spam", "spam", "ham", "0.9000", "0.2000", "12", "3", "2", "free <b>money</b> now", "frеe <b>mon\u200bey</b> now"}, rows[1])

	b.Reset()
	require.NoError(t, report.WriteDataset(&b, sampleReports()))
	assert.Equal(t, "label\ttext\nspam\tfrеe <b>mon\u200bey</b> now\nspam\twn a prize\n", b.String())

	b.Reset()
	require.NoError(t, report.WriteJSON(&b, sampleReports()))
	var back struct{ Reports []attack.Report }
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	assert.Equal(t, sampleReports()[0].Results, back.Reports[0].Results)
}

func TestGate(t *testing.T) {
	g := report.Gate{MinAccuracy: 0.7, MinRobust: 0.5, Per: map[string]float64{"pruthi": 0.9}}
	cases, ok := g.Check(0, 0, sampleReports())
	assert.False(t, ok)
	require.Len(t, cases, 3)
	assert.True(t, cases[0].Met)
	assert.False(t, cases[1].Met)
	assert.True(t, cases[2].Met)
	assert.Equal(t, []int{4, 5}, cases[1].Won)
	assert.Less(t, cases[1].Low, 0.25)
	assert.Greater(t, cases[1].High, 0.25)

	var b bytes.Buffer
	require.NoError(t, report.WriteJUnit(&b, "my model", cases))
	var suite struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	require.NoError(t, xml.Unmarshal(b.Bytes(), &suite))
	assert.Equal(t, 3, suite.Tests)
	assert.Equal(t, 1, suite.Failures)
	assert.Contains(t, suite.Cases[1].Failure.Message, "expected at least 0.5000")
	md := report.Markdown("my|model", cases)
	assert.Contains(t, md, "**not met**")
	assert.Contains(t, md, `my\|model`)
	_, ok = g.Check(0.9, 100, nil)
	assert.True(t, ok)
	_, ok = g.Check(0, 0, nil)
	assert.False(t, ok, "nothing measured is nothing met")
}

func TestCard(t *testing.T) {
	card := report.Card(sampleReports(), report.Meta{Data: "mr/test.tsv", Made: "today", Costs: []report.Cost{{Step: "attack", Seconds: 3}}})
	assert.Contains(t, card, "| deepwordbug | 1 | 3 | none | 4 | 75.0 % | 25.0 % |")
	once := report.PutCard("# Model\n\nText.\n", card)
	assert.Equal(t, once, report.PutCard(once, card), "putting it again changes nothing")
	other := report.PutCard(once+"After.\n", report.Card(nil, report.Meta{}))
	assert.True(t, strings.HasPrefix(other, "# Model\n\nText.\n"))
	assert.True(t, strings.HasSuffix(other, "After.\n"))
	assert.NotContains(t, other, "deepwordbug")
	b, err := json.Marshal(report.CardData(sampleReports(), report.Meta{}))
	require.NoError(t, err)
	assert.NotContains(t, string(b), "money")
}

func TestDiff(t *testing.T) {
	join := func(p []report.Piece) string {
		s := ""
		for _, x := range p {
			if x.Changed {
				s += "{" + x.Text + "}"
			} else {
				s += x.Text
			}
		}
		return s
	}
	for _, c := range [][4]string{
		{"kitten", "sitting", "{k}itt{e}n", "{s}itt{i}n{g}"}, {"", "", "", ""}, {"abc", "", "{abc}", ""}, {"free", "f\u200bree", "free", "f{[U+200B]}ree"},
		{"swap", "sawp", "s{w}ap", "sa{w}p"},
	} {
		a, b := report.Diff(c[0], c[1])
		assert.Equal(t, c[2], join(a), "%q %q", c[0], c[1])
		assert.Equal(t, c[3], join(b), "%q %q", c[0], c[1])
	}
	a, b := report.Diff(strings.Repeat("a", 3000), strings.Repeat("b", 3000))
	assert.Len(t, a, 1)
	assert.Len(t, b, 1)
}
