package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/temper-ml/temper/core/attack"
)

// Gate is what a model must reach to pass: shares between 0 and 1.
type Gate struct {
	// MinAccuracy is asked of the clean accuracy, MinRobust of the accuracy under every attack.
	MinAccuracy, MinRobust float64
	// Per overrides MinRobust for single recipes.
	Per map[string]float64
}

// Case is one requirement and what was measured.
type Case struct {
	Name    string  `json:"name"`
	Recipe  string  `json:"recipe,omitempty"`
	Minimum float64 `json:"minimum"`
	Value   float64 `json:"value"`
	// Low and High are the 95 % Wilson interval of Value, for the number of examples that there were.
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Examples int     `json:"examples"`
	Met      bool    `json:"met"`
	Seconds  float64 `json:"seconds"`
	// Won names the first rows that fell, for the message of a failure.
	Won []int `json:"won,omitempty"`
}

// Check compares reports with the gate. accuracy is the clean accuracy on examples texts of the whole test set; when examples is 0, that of
// the first report is taken. ok is false when there is nothing to judge by.
func (g Gate) Check(accuracy float64, examples int, reports []*attack.Report) (cases []Case, ok bool) {
	ok = examples > 0 || len(reports) > 0
	if examples == 0 && len(reports) > 0 {
		accuracy, examples = reports[0].CleanAccuracy, reports[0].Examples
	}
	add := func(c Case) {
		c.Low, c.High = wilson(c.Value, c.Examples)
		c.Met = c.Examples > 0 && c.Value >= c.Minimum
		ok = ok && c.Met
		cases = append(cases, c)
	}
	add(Case{Name: "clean accuracy", Minimum: g.MinAccuracy, Value: accuracy, Examples: examples})
	for _, r := range reports {
		least := g.MinRobust
		if m, there := g.Per[r.Recipe]; there {
			least = m
		}
		c := Case{Name: "accuracy under " + r.Recipe, Recipe: r.Recipe, Minimum: least, Value: r.AccuracyUnderAttack, Examples: r.Examples, Seconds: r.Seconds}
		for _, x := range r.Results {
			if x.Status == attack.Won && len(c.Won) < 10 {
				c.Won = append(c.Won, x.Row)
			}
		}
		add(c)
	}
	return cases, ok
}

// wilson is the 95 % score interval of a share seen in n examples (Wilson 1927).
func wilson(p float64, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959964
	m := float64(n)
	center := (p + z*z/(2*m)) / (1 + z*z/m)
	half := z / (1 + z*z/m) * math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, center-half), min(1, center+half)
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (c Case) message() string {
	s := fmt.Sprintf("%s is %.4f, expected at least %.4f (%d examples, 95 %% interval %.4f to %.4f)", c.Name, c.Value, c.Minimum, c.Examples, c.Low, c.High)
	if c.Examples == 0 {
		return c.Name + ": no examples to judge by"
	}
	return s
}

// WriteJUnit writes the cases as a JUnit test suite.
func WriteJUnit(w io.Writer, model string, cases []Case) error {
	s := junitSuite{Name: "temper check", Tests: len(cases)}
	total := 0.0
	for _, c := range cases {
		k := junitCase{Class: "temper." + model, Name: c.Name, Time: fmt.Sprintf("%.3f", c.Seconds)}
		total += c.Seconds
		if !c.Met {
			s.Failures++
			text := c.message()
			if len(c.Won) > 0 {
				text += "\nrows that fell: " + strings.Trim(fmt.Sprint(c.Won), "[]")
			}
			k.Failure = &junitFailure{c.message(), text}
		}
		s.Cases = append(s.Cases, k)
	}
	s.Time = fmt.Sprintf("%.3f", total)
	b, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("junit: %w", err)
	}
	if _, err := io.WriteString(w, xml.Header+string(b)+"\n"); err != nil {
		return fmt.Errorf("junit: %w", err)
	}
	return nil
}

// Markdown is a summary for a pull request or a job's page.
func Markdown(model string, cases []Case) string {
	var b strings.Builder
	state := "passed"
	for _, c := range cases {
		if !c.Met {
			state = "**not met**"
		}
	}
	fmt.Fprintf(&b, "### temper check: %s %s\n\n| requirement | measured | at least | 95 %% interval | examples | |\n|---|---:|---:|---|---:|---|\n", cell(model), state)
	for _, c := range cases {
		mark := "ok"
		if !c.Met {
			mark = "**failed**"
		}
		fmt.Fprintf(&b, "| %s | %.1f %% | %.1f %% | %.1f to %.1f %% | %d | %s |\n", cell(c.Name), 100*c.Value, 100*c.Minimum, 100*c.Low, 100*c.High, c.Examples, mark)
	}
	return b.String()
}

func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ").Replace(s) }

const (
	cardBegin = "<!-- temper robustness card: begin -->"
	cardEnd   = "<!-- temper robustness card: end -->"
)

// Card is the robustness card of a model: what was tried, with which seeds and budgets, what came out and what it cost.
func Card(reports []*attack.Report, meta Meta) string {
	var b strings.Builder
	b.WriteString(cardBegin + "\n## Robustness\n\n")
	if meta.Data != "" {
		fmt.Fprintf(&b, "Measured on %s", meta.Data)
		if meta.Made != "" {
			fmt.Fprintf(&b, ", %s", meta.Made)
		}
		if meta.Version != "" {
			fmt.Fprintf(&b, ", with temper %s", meta.Version)
		}
		b.WriteString(".\n\n")
	}
	b.WriteString("| attack | version | seed | budget | examples | clean accuracy | under attack | success rate | queries | words changed |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range reports {
		budget := "none"
		if r.Budget > 0 {
			budget = fmt.Sprint(r.Budget)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %d | %.1f %% | %.1f %% | %.1f %% | %.1f | %.1f |\n", cell(r.Recipe), r.Version, r.Seed, budget, r.Examples,
			100*r.CleanAccuracy, 100*r.AccuracyUnderAttack, 100*r.AttackSuccessRate, r.AverageQueries, r.AverageWordsChanged)
	}
	b.WriteString("\nExamples that were wrong before the attack count as lost under it. An attack that fails proves nothing about stronger ones.\n")
	if len(meta.Costs) > 0 {
		b.WriteString("\n| step | seconds | |\n|---|---:|---|\n")
		for _, c := range meta.Costs {
			fmt.Fprintf(&b, "| %s | %.1f | %s |\n", cell(c.Step), c.Seconds, cell(c.Detail))
		}
	}
	for _, c := range meta.Commands {
		fmt.Fprintf(&b, "\n    %s\n", strings.ReplaceAll(c, "\n", " "))
	}
	b.WriteString(cardEnd + "\n")
	return b.String()
}

// PutCard replaces the card in a README, or adds it at the end.
func PutCard(readme, card string) string {
	from := strings.Index(readme, cardBegin)
	if from >= 0 {
		if to := strings.Index(readme[from:], cardEnd); to >= 0 {
			rest := strings.TrimPrefix(readme[from+to+len(cardEnd):], "\n")
			return readme[:from] + card + rest
		}
	}
	if readme != "" && !strings.HasSuffix(readme, "\n") {
		readme += "\n"
	}
	if readme != "" {
		readme += "\n"
	}
	return readme + card
}

// CardData is the card for a config file: the reports without their examples.
func CardData(reports []*attack.Report, meta Meta) map[string]any {
	slim := make([]attack.Report, len(reports))
	for i, r := range reports {
		slim[i] = *r
		slim[i].Results = nil
		slim[i].Labels = nil
	}
	return map[string]any{"data": meta.Data, "made": meta.Made, "temper": meta.Version, "attacks": slim, "costs": meta.Costs}
}
