package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// decode reads a JSON answer.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// Whatever is asked for gets an answer, or one line that says why not.
func TestGenerateCases(t *testing.T) {
	s := trained(t)
	ask := func(args ...string) []promptJSON {
		t.Helper()
		return decode[[]promptJSON](t, s.ok(append([]string{"generate", "--json", "--quiet", "--seed", "3"}, args...)...).out)
	}
	first := func(args ...string) sampleJSON { t.Helper(); return ask(args...)[0].Samples[0] }

	if a := first("--prompt", "高血压", "--length", "0"); a.Text != "高血压" || len(a.Tokens) != 0 || a.Finish != "length" {
		t.Errorf("length 0: %+v", a)
	}
	if a := first("--prompt", ""); len(a.Tokens) == 0 {
		t.Errorf("empty prompt: %+v", a)
	}
	long := strings.Repeat("高血压要注意，", 100)
	if a := first("--prompt", long, "--length", "40", "--min-length", "40"); !strings.HasPrefix(a.Text, long) || len(a.Tokens) != 40 {
		t.Errorf("a prompt beyond n_ctx: %d tokens", len(a.Tokens))
	}
	if a := first("--prompt", "高血压", "--length", "200", "--min-length", "200", "--top-p", "0.9", "--min-p", "0.01", "--typical-p", "0.9",
		"--no-repeat-ngram", "4", "--ban", "血压", "--ban", "什么"); len(a.Tokens) != 200 || strings.Contains(a.Text[len("高血压"):], "什么") {
		t.Errorf("past n_ctx, with bans: %+v", a)
	}
	beams := ask("--prompt", "高血压", "--beams", "3", "--length", "6", "--min-length", "6")[0].Samples
	if len(beams) != 3 || beams[0].LogProb < beams[1].LogProb || slices.Equal(beams[0].Tokens, beams[1].Tokens) {
		t.Errorf("beams: %+v", beams)
	}
	if a := first("--prompt", "高血压", "--logprobs", "2", "--length", "3", "--min-length", "3"); len(a.LogProbs) != 3 || len(a.Top) != 3 || len(a.Top[0]) != 2 ||
		a.Top[0][0].LogProb < a.Top[0][1].LogProb || math.Abs(a.LogProbs[0]+a.LogProbs[1]+a.LogProbs[2]-a.LogProb) > 1e-9 {
		t.Errorf("log-probabilities: %+v", a)
	}
	equal := func(samples []sampleJSON) (n int) {
		for i, a := range samples {
			for _, b := range samples[:i] {
				if slices.Equal(a.Tokens, b.Tokens) {
					n++
				}
			}
		}
		return n
	}
	few := []string{"--prompt", "高血压", "--length", "1", "--top-k", "6", "--samples", "5"}
	if apart, free := equal(ask(few...)[0].Samples), equal(ask(append(few, "--allow-duplicates")...)[0].Samples); apart >= free {
		t.Errorf("%d equal samples, %d when they are allowed", apart, free)
	}

	for _, c := range []struct {
		args  string
		parts []string
	}{
		{"--length 1000000000000 --prompt x", []string{"length", "100000000"}},
		{"--length -1 --typical-p 2 --beams 100 --prompt x", []string{"length", "typical_p", "beams"}},
		{"--beams 2 --samples 3 --prompt x", []string{"2 beams cannot give 3 samples"}},
		{"--beams 2 --stream --prompt x", []string{"--stream"}},
		{"--logprobs 2 --prompt x", []string{"--json"}},
		{"--ban= --prompt x", []string{"banned word"}},
		{"--prompts-file nowhere.txt", []string{"nowhere.txt"}},
		{"--prompts-file a --prompt x", []string{"name one of them"}},
		{"--bos nothing --prompt x", []string{"--bos", "no such token"}},
		{"--bos none --prompt=", []string{"the prompt is empty"}},
	} {
		s.fails(fault.CodeUsage, c.parts, append([]string{"generate"}, strings.Fields(c.args)...)...)
	}
	s.write("blank.txt", "\n \n")
	s.fails(fault.CodeUsage, []string{"blank.txt", "no prompt"}, "generate", "--prompts-file", "blank.txt")
	s.write("gbk.txt", "ok\n\xb8\xdf\xd1\xaa\xd1\xb9\n")
	s.fails(fault.CodeUsage, []string{"gbk.txt, line 2", "UTF-8"}, "generate", "--prompts-file", "gbk.txt")
}

// A file of prompts is answered many at once: in its order as one document,
// each line once as they finish, the same texts either way and at any number of
// threads.
func TestPromptsFile(t *testing.T) {
	s := trained(t)
	var file strings.Builder
	file.WriteString("\ufeff")
	for i := range 50 {
		fmt.Fprintf(&file, "第%d个问题\r\n\n", i)
	}
	s.write("prompts.txt", file.String())
	args := []string{"generate", "--prompts-file", "prompts.txt", "--length", "9", "--samples", "2", "--seed", "5"}
	list := decode[[]promptJSON](t, s.ok(append(args, "--json")...).out)
	texts := map[string][]sampleJSON{}
	for i, a := range list {
		if a.Prompt != fmt.Sprintf("第%d个问题", i) {
			t.Errorf("answer %d is that of %q", i, a.Prompt)
		}
		texts[a.Prompt] = a.Samples
	}
	if len(texts) != 50 {
		t.Fatalf("%d answers", len(texts))
	}
	lines := strings.Split(strings.TrimSpace(s.ok(append(args, "--jsonl", "--threads", "1")...).out), "\n")
	for _, line := range lines {
		a := decode[promptJSON](t, line)
		for i, b := range texts[a.Prompt] {
			if a.Samples[i].Text != b.Text || a.Samples[i].LogProb != b.LogProb {
				t.Errorf("%q: %q and %q", a.Prompt, a.Samples[i].Text, b.Text)
			}
		}
		delete(texts, a.Prompt)
	}
	if len(texts) != 0 || len(lines) != 50 {
		t.Errorf("%d lines, %d prompts without an answer", len(lines), len(texts))
	}
	s.stdin = file.String()
	if piped := s.ok("generate", "--json", "--length", "9", "--samples", "2", "--seed", "5"); piped.out != s.ok(append(args, "--json")...).out {
		t.Error("a pipe is answered in another way")
	}
}

// A model with weights beyond all measure, from which no numbers come, is named
// and called corrupt; so is one whose weights are no numbers.
func TestBrokenModelIsNamed(t *testing.T) {
	s := trained(t)
	if err := os.CopyFS("broken", os.DirFS("model/final_model")); err != nil {
		t.Fatal(err)
	}
	const file = "broken/model.safetensors"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head := 8 + int(binary.LittleEndian.Uint64(b))
	for _, weight := range []float32{3e38, float32(math.NaN())} {
		one := binary.LittleEndian.AppendUint32(nil, math.Float32bits(weight))
		copy(b[head:], bytes.Repeat(one, (len(b)-head)/4))
		s.write(file, string(b))
		parts := []string{"not finite"}
		if weight == 3e38 {
			parts = append(parts, "broken")
		}
		s.fails(fault.CodeCorrupt, parts, "generate", "--model", "broken", "--prompt", "高血压")
	}
}
