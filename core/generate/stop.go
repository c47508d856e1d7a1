package generate

import "strings"

// stopper holds back text that may turn out to be the beginning of a stop string.
type stopper struct {
	stops []string
	held  string
}

// push takes new text and returns what is certain, and whether a stop string was met (it is cut off).
func (s *stopper) push(text string) (out string, stopped bool) {
	if len(s.stops) == 0 {
		return text, false
	}
	s.held += text
	first, hit := len(s.held), false
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && i < first {
			first, hit = i, true
		}
	}
	if hit {
		out, s.held = s.held[:first], ""
		return out, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
				break
			}
		}
	}
	out, s.held = s.held[:len(s.held)-keep], s.held[len(s.held)-keep:]
	return out, false
}

// rest is what was held back at the end.
func (s *stopper) rest() string {
	out := s.held
	s.held = ""
	return out
}
