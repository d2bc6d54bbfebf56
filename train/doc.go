// Package train fits a model to token shards.
//
//	result, err := train.Run(ctx, train.Options{Config: cfg, Data: "tokenized", Out: "model"}, observer)
//
// A run is a chain of optimizer steps. Each takes the next effective batch of
// windows in the epoch's shuffled order, sums up its gradients in micro-batches
// that fit the memory, clips them by their global norm, and lets AdamW, a
// gorgonia.Solver, change the weights at the rate that the schedule gives. At the
// end of an epoch the model is validated and saved, whole and at once usable,
// together with the state from which a run that was cut short goes on as if it
// had not been.
//
// Everything random (weights, order, dropout) is a function of the seed and of
// the place in the run: the same options give the same weights to the bit, with
// any number of threads, however often the run was interrupted, and however the
// effective batch is cut into micro-batches.
package train
