package report

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"promptgen/internal/bytesize"
	"promptgen/internal/kernel"
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

func percent(share float64) string { return fmt.Sprintf("%.3g %%", 100*share) }

func humanSeconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", s)
	}
	return d.Round(time.Second).String()
}

// flagNames are the flags of train that set an option, where its name does not
// say so.
var flagNames = map[string]string{
	"LR": "lr", "MinLR": "min-lr", "DType": "dtype", "OptimizerBF16": "optimizer-state", "SamplePrompts": "sample-prompt",
	"LoRA.rank": "lora-rank", "LoRA.alpha": "lora-alpha", "LoRA.dropout": "lora-dropout", "LoRA.targets": "lora-target",
	"Dist.Mode": "dist", "Dist.Library": "MPI library", "Dist.Timeout": "dist-timeout", "SaveInterval": "save-every",
	"WriterDir": "writer_dir", "ISA": "instruction set", "DataHash": "data must be", "BaseHash": "init-from's weights",
}

// asFlag shows an option of a run as its flag is written.
func asFlag(f fact) fact {
	switch f.Key {
	case "DType":
		if n, err := strconv.ParseUint(f.Value, 10, 8); err == nil {
			f.Value = kernel.DType(n).String()
		}
	case "OptimizerBF16":
		f.Value = kernel.BF16.String()
	case "MaxMemory":
		if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil {
			f.Value = bytesize.Format(n)
		}
	case "Dist.Timeout", "SaveInterval":
		if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil {
			f.Value = time.Duration(n).String()
		}
	}
	var list []string
	if json.Unmarshal([]byte(f.Value), &list) == nil {
		f.Value = strings.Join(list, ", ")
	}
	name, ok := flagNames[f.Key]
	if !ok {
		var b strings.Builder
		for i, r := range f.Key {
			if i > 0 && unicode.IsUpper(r) {
				b.WriteByte('-')
			}
			b.WriteRune(unicode.ToLower(r))
		}
		name = b.String()
	}
	f.Key = name
	return f
}
