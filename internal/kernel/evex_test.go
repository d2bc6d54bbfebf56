package kernel_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// The instructions that are encoded by hand read, disassembled, as the comment
// beside their bytes says.
func TestHandEncodedInstructions(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("no assembly on this architecture")
	}
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("objdump is not installed")
	}
	var code []byte
	var want []string
	for _, path := range []string{"kernels_amd64.s", "attention_amd64.s", "../decode/kernels_amd64.s"} {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c, w := handEncoded(string(source))
		if len(w) == 0 {
			t.Fatalf("%s holds no hand-encoded instruction", path)
		}
		code, want = append(code, c...), append(want, w...)
	}
	path := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(path, code, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)\t(v\w+) +(zmm\d+),(zmm\d+),(zmm\d+)`).FindAllStringSubmatch(string(out), -1) {
		got = append(got, strings.Join(m[1:], " "))
	}
	if len(got) == 0 && bytes.Contains(out, []byte("(bad)")) {
		t.Skip("this objdump does not know AVX512_BF16")
	}
	if len(got) != len(want) {
		t.Fatalf("%d instructions disassembled, %d encoded", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("instruction %d is %q, its comment says %q", i, got[i], want[i])
		}
	}
}

// handEncoded collects the bytes and what the comments before them say, in
// objdump's order of operands.
func handEncoded(source string) (code []byte, want []string) {
	comment := regexp.MustCompile(`^// (V\w+) Z(\d+), Z(\d+), Z(\d+)$`)
	encoded := regexp.MustCompile(`^BYTE +\$0x([0-9a-f]{2})$`)
	for _, line := range strings.Split(source, "\n") {
		line = strings.TrimSpace(line)
		if m := comment.FindStringSubmatch(line); m != nil {
			want = append(want, strings.ToLower(m[1])+" zmm"+m[4]+" zmm"+m[3]+" zmm"+m[2])
		} else if m := encoded.FindStringSubmatch(line); m != nil {
			b, _ := hex.DecodeString(m[1])
			code = append(code, b...)
		}
	}
	return code, want
}
