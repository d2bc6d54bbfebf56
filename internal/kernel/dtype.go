package kernel

import (
	"fmt"
	"strings"
)

// DType is a storage format of numbers.
type DType uint8

// The formats, by their customary names.
const (
	FP32 DType = iota
	FP16
	BF16
	Q8_0 // blocks of 32 8-bit integers with one fp16 scale
	Q4_0 // blocks of 32 4-bit integers with one fp16 scale
)

var dtypeNames = [...]string{FP32: "fp32", FP16: "fp16", BF16: "bf16", Q8_0: "q8_0", Q4_0: "q4_0"}

// String is the name that ParseDType reads.
func (d DType) String() string {
	if int(d) < len(dtypeNames) {
		return dtypeNames[d]
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// ParseDType reads a format's name: fp32, fp16, bf16, q8_0 or q4_0.
func ParseDType(s string) (DType, error) {
	for d, name := range dtypeNames {
		if strings.EqualFold(s, name) {
			return DType(d), nil
		}
	}
	return FP32, fmt.Errorf("dtype %q is not known: use %s", s, strings.Join(dtypeNames[:], ", "))
}
