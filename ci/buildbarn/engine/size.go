package engine

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of bytes as people write it, such as 20GiB. It is a flag's
// value.
type Size int64

var units = []string{"B", "KiB", "MiB", "GiB", "TiB"}

// String writes it so that Set reads the same.
func (s Size) String() string {
	unit := 0
	for s != 0 && s%1024 == 0 && unit < len(units)-1 {
		s /= 1024
		unit++
	}
	return strconv.FormatInt(int64(s), 10) + units[unit]
}

// Set reads a whole number and a unit; without one it is bytes.
func (s *Size) Set(text string) error {
	number := strings.TrimRight(text, "KMGTiB")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size like 20GiB", text)
	}
	unit := strings.TrimPrefix(text, number)
	if unit == "" {
		unit = "B"
	}
	for i, u := range units {
		if u == unit && n <= (1<<62)>>(10*i) {
			*s = Size(n << (10 * i))
			return nil
		}
	}
	return fmt.Errorf("%q is not a size like 20GiB", text)
}

// Type names the kind of value in a command's help.
func (s *Size) Type() string { return "size" }
