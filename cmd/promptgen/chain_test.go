package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"promptgen/internal/fault"
)

// The first command that a user types must run the whole chain on the user's own
// text, leave what the contract names, and print commands that work.
func TestQuickstart(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	s := newShell(t)
	s.write("mine.txt", corpus())
	o := s.ok("quickstart", "mine.txt", "--dir", "q", "--quiet")
	for _, want := range []string{"on text held out", "第0个问题", "Go on with:", "serve --model q/model/final_model"} {
		if !strings.Contains(o.out, want) {
			t.Errorf("no %q in\n%s", want, o.out)
		}
	}
	for _, path := range []string{"q/vocab/vocab_user.txt", "q/tokenized", "q/model/final_model", "q/model/report.html"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	printed := 0
	for line := range strings.Lines(o.out) {
		if _, args, ok := strings.Cut(line, "promptgen generate "); ok {
			printed++
			s.stdin = "高血压\n"
			s.ok(append([]string{"generate"}, strings.Fields(args)...)...)
		}
	}
	if printed != 2 {
		t.Errorf("%d generate commands", printed)
	}
	// More text makes a larger model and fewer epochs, within the same work.
	few, many := sizedTo(10_000, 1000, quickstartWork), sizedTo(2_000_000, 1000, quickstartWork)
	if few.Config.NumParams() >= many.Config.NumParams() || few.Epochs <= many.Epochs || many.Epochs != 1 {
		t.Errorf("%+v, %+v", few, many)
	}
	if tiny := sizedTo(100, 1000, quickstartWork); int64(tiny.Config.NCtx)*8 > 100 {
		t.Errorf("windows of %d for 100 tokens", tiny.Config.NCtx)
	}
}

// A training is repeated from its report to the bit; nothing but places may be
// said anew, and reports compare.
func TestRepeatAndReport(t *testing.T) {
	s := trained(t)
	s.ok("train", "--from-report", "model/report.html", "--out", "again", "--threads", "1", "--quiet")
	weights := func(dir string) []byte {
		b, err := os.ReadFile(dir + "/final_model/model.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(weights("model"), weights("again")) {
		t.Error("other weights")
	}
	s.fails(fault.CodeUsage, []string{"--lr", "--epochs", "--from-report"}, "train", "--from-report", "model", "--lr", "1", "--epochs", "3")
	s.fails(fault.CodeUsage, []string{"nowhere"}, "train", "--from-report", "nowhere")

	if o := s.ok("report", "model", "again", "--json"); !strings.Contains(o.out, "comparison.html") || number(t, o.out, "runs") != 2 {
		t.Errorf("%s", o.out)
	}
	if page, err := os.ReadFile("comparison.html"); err != nil || !strings.Contains(string(page), "again") {
		t.Errorf("comparison.html: %v", err)
	}
	os.Remove("model/report.html")
	if o := s.ok("report", "model"); !strings.Contains(o.out, "model/report.html") {
		t.Errorf("%s", o.out)
	}
	if _, err := os.Stat("model/report.html"); err != nil {
		t.Error(err)
	}
	s.fails(fault.CodeUsage, []string{"name the output folder"}, "report")
	s.fails(fault.CodeUsage, []string{"nowhere"}, "report", "nowhere")
	s.fails(fault.CodeUsage, []string{"corpus.txt"}, "report", "model", "--out", "corpus.txt/x.html")
}

// A report replaces a report, and neither what it is made from, by whatever name,
// nor what a user keeps.
func TestReportKeepsWhatIsThere(t *testing.T) {
	s := trained(t)
	s.ok("report", "model", "--out", "single.html")
	s.ok("report", "model", "model", "--out", "model/two.html")
	s.write("own.html", "<!doctype html><p>mine")
	if err := os.Link("model/metrics.jsonl", "link"); err != nil {
		t.Skip(err)
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for out, say := range map[string]string{
		"corpus.txt": "no training report", "own.html": "no training report", "model/final_model/vocab.txt": "no training report",
		"model/metrics.jsonl": "made from", "link": "made from", "model/../model/run.json": "made from", "model": "is a folder",
	} {
		before := ""
		if out != "model" {
			before = read(out)
		}
		s.fails(fault.CodeUsage, []string{out, say, "--out"}, "report", "model", "--out", out)
		s.fails(fault.CodeUsage, []string{out, say, "--out"}, "report", "model", "model", "--out", out)
		if out != "model" && read(out) != before {
			t.Errorf("%s was replaced", out)
		}
	}
	os.Remove("model/report.html")
	s.write("model/report.html", "mine")
	s.fails(fault.CodeUsage, []string{"model/report.html"}, "report", "model")
	s.write("empty.html", "")
	for _, out := range []string{"empty.html", "single.html", "model/two.html"} {
		s.ok("report", "model", "--out", out)
	}
}

// Evaluating with packed weights measures nearly the same.
func TestEvalTypes(t *testing.T) {
	s := trained(t)
	loss := func(dtype string) float64 {
		return number(t, s.ok("eval", "--data", "tokenized", "--dtype", dtype, "--json").out, "loss")
	}
	want := loss("fp32")
	if got := loss("bf16"); got == want || got < want-0.05 || got > want+0.05 {
		t.Errorf("bf16: loss %v, fp32 %v", got, want)
	}
	s.fails(fault.CodeUsage, []string{"q8_0", "32"}, "eval", "--data", "tokenized", "--dtype", "q8_0")
	if o := s.ok("eval", "--corpus", "corpus.txt"); !strings.Contains(o.out, "unigram entropy") {
		t.Errorf("%s", o.out)
	}
}

// tokenize --text shows how a string is cut.
func TestTokenizeText(t *testing.T) {
	s := trained(t)
	args := []string{"tokenize", "--text", "高血压𪚥", "--text", ""}
	texts := decode[[]cutText](t, s.ok(append(args, "--json")...).out)
	if len(texts) != 2 || texts[0].Unk != 1 || texts[0].Tokens[0] != "高血压" || texts[0].Tokens[1] != "[UNK]" || len(texts[0].IDs) != 2 || len(texts[1].IDs) != 0 {
		t.Errorf("%+v", texts)
	}
	if o := s.ok(args...); !strings.Contains(o.out, "高血压") || !strings.Contains(o.out, "[UNK]   1") {
		t.Errorf("%s", o.out)
	}
}

// Measurements end, and name what they measured; wrong shapes are refused.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("measures for some seconds")
	}
	s := trained(t)
	size := []string{"--config", "tiny.json", "--vocab-size", "50", "--threads", "2"}
	small := append([]string{"--steps", "2", "--batch-size", "1"}, size...)
	for _, c := range []struct {
		args   []string
		fields []string
		text   string
	}{
		{append([]string{"bench", "train", "--dropout", "0"}, small...), []string{"tokens_per_s", "gflops", "limit_gflops", "mfu", "peak_rss_bytes", "planned_peak_bytes"}, "share of the limit"},
		{append([]string{"bench", "gemm", "--dtype", "bf16"}, small...), []string{"gflops", "limit_gflops", "mfu"}, "mlp out dw"},
		{[]string{"bench", "infer", "--model", "model/final_model"}, []string{"prefill_tokens_per_s", "decode_tokens_per_s", "decode_bytes_per_token", "limit_bytes_per_s", "batch5_tokens_per_s", "request_5x50_ms", "peak_rss_bytes"}, "5 samples of 50 tokens"},
		{append([]string{"bench", "infer", "--dtype", "bf16"}, size...), []string{"decode_tokens_per_s"}, "decode"},
	} {
		o := s.ok(append(c.args, "--json")...)
		for _, f := range c.fields {
			if number(t, o.out, f) <= 0 {
				t.Errorf("%v: %s is not positive", c.args, f)
			}
		}
		if o := s.ok(c.args...); !strings.Contains(o.out, c.text) || !strings.Contains(o.out, "this machine") {
			t.Errorf("%v:\n%s", c.args, o.out)
		}
	}
	for _, c := range []struct {
		line  string
		parts []string
	}{
		{"bench", []string{"promptgen bench train", "promptgen bench gemm"}},
		{"bench speed", []string{"promptgen bench infer"}},
		{"bench train --batch-size 0 --dropout 1 --steps 0 --config nowhere --dtype int3", []string{"--batch-size", "--dropout", "--steps", "nowhere", "--dtype"}},
		{"bench gemm --vocab-size -3", []string{"--vocab-size"}},
		{"bench infer --config test --model model/final_model", []string{"either --config or --model"}},
		{"bench infer --config nowhere --vocab-size 0", []string{"nowhere", "--vocab-size"}},
		{"bench infer --model nowhere", []string{"nowhere"}},
	} {
		s.fails(fault.CodeUsage, c.parts, strings.Fields(c.line)...)
	}
	s.environ = []string{"PROMPTGEN_ISA=mmx"}
	for _, line := range []string{"bench train", "bench gemm", "bench infer --config test", "train --config tiny.json --resume never", "eval --data tokenized",
		"generate --prompt x", "doctor", "quickstart corpus.txt"} {
		s.fails(fault.CodeUsage, []string{"mmx", "go"}, strings.Fields(line)...)
	}
}
