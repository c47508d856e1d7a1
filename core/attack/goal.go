package attack

import "fmt"

// Goal tells how near a row of scores is to what the attacker wants, and when it is reached.
type Goal interface {
	Name() string
	// Score grows towards success. label is the true class.
	Score(scores []float32, label int) float32
	Reached(scores []float32, label int) bool
	// Skip tells that there is nothing to attack: the model was wrong, or the goal was reached, before any change.
	Skip(scores []float32, label int) bool
}

// Argmax returns the index of the largest score, the first among equals.
func Argmax(scores []float32) int {
	best := 0
	for i, s := range scores {
		if s > scores[best] {
			best = i
		}
	}
	return best
}

// Untargeted wants any other class than the true one.
type Untargeted struct{}

func (Untargeted) Name() string                         { return "untargeted" }
func (Untargeted) Score(s []float32, label int) float32 { return 1 - s[label] }
func (Untargeted) Reached(s []float32, label int) bool  { return Argmax(s) != label }
func (Untargeted) Skip(s []float32, label int) bool     { return Argmax(s) != label }

// Targeted wants class Target. Examples that are of that class already, or that the model gets wrong, are skipped.
type Targeted struct{ Target int }

func (g Targeted) Name() string                     { return fmt.Sprintf("targeted:%d", g.Target) }
func (g Targeted) Score(s []float32, _ int) float32 { return s[g.Target] }
func (g Targeted) Reached(s []float32, _ int) bool  { return Argmax(s) == g.Target }
func (g Targeted) Skip(s []float32, label int) bool { return label == g.Target || Argmax(s) != label }

// Threshold wants the score of class Class below Below: a detector evaded at its operating point. Examples of other classes, and those that
// the detector misses anyway, are skipped.
type Threshold struct {
	Class int
	Below float32
}

func (g Threshold) Name() string                     { return fmt.Sprintf("threshold:%d<%g", g.Class, g.Below) }
func (g Threshold) Score(s []float32, _ int) float32 { return 1 - s[g.Class] }
func (g Threshold) Reached(s []float32, _ int) bool  { return s[g.Class] < g.Below }
func (g Threshold) Skip(s []float32, label int) bool { return label != g.Class || s[g.Class] < g.Below }

// keepLabel is the goal of input reduction: remove words while the prediction stays. Its score counts nothing; the search reads Reached as
// "still the same class".
type keepLabel struct{}

func (keepLabel) Name() string                         { return "reduce" }
func (keepLabel) Score(s []float32, label int) float32 { return s[label] }
func (keepLabel) Reached([]float32, int) bool          { return false }
func (keepLabel) Skip(s []float32, label int) bool     { return Argmax(s) != label }

func checkGoal(g Goal, classes int) error {
	c := 0
	switch g := g.(type) {
	case Targeted:
		c = g.Target
	case Threshold:
		c = g.Class
		if !(g.Below > 0 && g.Below <= 1) {
			return fmt.Errorf("attack: threshold %g is not in (0, 1]", g.Below)
		}
	}
	if c < 0 || c >= classes {
		return fmt.Errorf("attack: goal %s names class %d of %d", g.Name(), c, classes)
	}
	return nil
}
