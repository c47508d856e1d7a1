package peft

import (
	"fmt"
	"time"

	"github.com/dlclark/regexp2"
)

// matches reports whether the pattern matches text. The engine of the page is weighed in bytes, and the tokenizers have brought this
// library with them: the standard one would be a second.
func matches(pattern, text string) (ok bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, fmt.Errorf("the engine refuses it: %v", r)
		}
	}()
	re, err := regexp2.Compile(pattern, regexp2.RE2)
	if err != nil {
		return false, err
	}
	re.MatchTimeout = time.Second
	return re.MatchString(text)
}
