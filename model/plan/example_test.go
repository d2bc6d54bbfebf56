package plan_test

import (
	"fmt"

	"promptgen/configs"
	"promptgen/model/plan"
)

// What a training of GPT-2 small takes, and how it fits into half of that.
func Example() {
	c, err := configs.Load("small")
	if err != nil {
		fmt.Println(err)
		return
	}
	c.VocabSize = 21128
	wanted := plan.Settings{Batch: 8, Threads: 2}
	parts, err := plan.Of(c, wanted)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("all of it:", parts.Total()>>30, "GiB and more")
	chosen, fits, err := plan.Fit(c, wanted, plan.Auto, parts.Total()/2)
	fmt.Println(fits, err, "micro-batches of", chosen.Batch, "of", chosen.Sequences)
	// Output:
	// all of it: 4 GiB and more
	// true <nil> micro-batches of 1 of 8
}
