package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// number is a figure as people read it: at most five digits that matter.
func number(v any) string {
	switch x := v.(type) {
	case *float64:
		if x == nil {
			return "–"
		}
		return number(*x)
	case float64:
		switch a := math.Abs(x); {
		case a != 0 && (a < 1e-3 || a >= 1e6):
			return strconv.FormatFloat(x, 'e', 2, 64)
		case a >= 1000:
			return humanCount(int64(math.Round(x)))
		}
		return strconv.FormatFloat(x, 'g', 5, 64)
	}
	return fmt.Sprint(v)
}

// humanCount groups the digits of a whole number by thousands.
func humanCount(v any) string {
	s := fmt.Sprint(v)
	var b strings.Builder
	for i, r := range s {
		if i > 0 && s[i-1] != '-' && (len(s)-i)%3 == 0 {
			b.WriteRune('\u202f') // a narrow space
		}
		b.WriteRune(r)
	}
	return b.String()
}

func humanBytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

func humanSeconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", s)
	}
	return d.Round(time.Second).String()
}
