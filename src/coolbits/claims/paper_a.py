"""The claims of paper A (arXiv 2510.06213), on training dynamics and quantization, and the question it leaves open."""

from coolbits.claims import averages, decay, rates
from coolbits.claims.claim import NATS, Claim
from coolbits.claims.states import LOSS_MARGIN

PAPER_A = {
    "decay-raises-error": Claim(
        "Quantization error jumps when the learning rate decays.",
        "paper A, sections 3 and 4, Figures 1, 2 and 4",
        "Error at the end of each cooldown less the error where it left the trunk; mean over cooldowns.",
        "From the branch point to the end of a cooldown the error changed by {effect}.",
        "cooldowns, and their trunk's checkpoint at the branch",
        decay.decay_raises_error,
    ),
    "decay-raises-error-at-equal-tokens": Claim(
        "It is the decay that raises the error: a trunk that saw as many tokens at a constant rate has less.",
        "paper A, section 4, Figure 4",
        "Error at the end of each cooldown less the trunk's error after equally many tokens, interpolated between its "
        "checkpoints; mean over cooldowns.",
        "After equally many tokens the end of a cooldown differs from the trunk by {effect}.",
        "cooldowns that end before their trunk does",
        decay.decay_raises_error_at_equal_tokens,
    ),
    "decay-lowers-loss": Claim(
        "While the error jumps, the full-precision loss falls, further than at a constant rate.",
        "paper A, section 3, Figure 1",
        "Full-precision loss of the trunk after equally many tokens, interpolated between its checkpoints, less that "
        "at the end of each cooldown; mean over cooldowns.",
        "After equally many tokens a cooldown had a full-precision loss lower than the trunk by {effect}.",
        "cooldowns that end before their trunk does",
        decay.decay_lowers_loss,
        NATS,
        full_precision=True,
    ),
    "flat-while-constant": Claim(
        "Quantization error stays almost flat while the learning rate is constant.",
        "paper A, section 3, Figures 1 and 4",
        "Rise of the error in a cooldown less twice the drift, up or down, at the constant rate over as many tokens; "
        "the drift is the slope of the error in log tokens on the trunk after warmup.",
        "The rise in a cooldown exceeds twice the drift at a constant rate by {effect}.",
        "a trunk with three stable checkpoints or more, and cooldowns",
        decay.flat_while_constant,
    ),
    "decay-not-tokens": Claim(
        "Cooldowns from short and long trunks end with nearly the same error: decay, not token count, drives it.",
        "paper A, section 4, Figure 4",
        "Mean rise of the error in a cooldown less the fitted change, up or down, of the final error from the smallest "
        "to the largest budget.",
        "The rise in a cooldown exceeds the change over all budgets by {effect}.",
        "cooldowns at two budgets or more",
        decay.decay_not_tokens,
    ),
    "wsd-vs-cosine": Claim(
        "More data makes models harder to quantize under cosine; under WSD the error grows more slowly, or not.",
        "paper A, section 4, Figures 5, 21 and 22",
        "Growth of the final error with each doubling of the token budget: cosine less WSD.",
        "With each doubling of the budget the error under cosine grew by {effect} more than under WSD.",
        "two budgets or more under cosine and under WSD, all else equal",
        decay.wsd_vs_cosine,
    ),
    "higher-rate-lowers-error": Claim(
        "A larger peak learning rate leaves a smaller quantization error.",
        "paper A, section 5, Figure 6",
        "Fall of the final error with each tenfold peak rate (least squares in the log rate), among rates whose final "
        "full-precision loss is within 5 % of the best.",
        "With each tenfold peak rate the final error fell by {effect}.",
        "two well-trained peak rates or more with equal budget",
        rates.higher_rate_lowers_error,
    ),
    "higher-rate-lowers-error-at-equal-loss": Claim(
        "A larger peak learning rate leaves a smaller quantization error at equal full-precision loss, too.",
        "paper A, section 5, Figures 6 and 23",
        "Error of the lower less that of the next higher peak rate at equal full-precision loss, along whole runs, "
        "interpolated; mean over the losses both passed and over neighbouring rates.",
        "At equal loss the next higher peak rate had an error lower by {effect}.",
        "two well-trained peak rates or more with equal budget whose losses overlap",
        rates.higher_rate_lowers_error_at_equal_loss,
    ),
    "averaging-beats-decay-at-low-bits": Claim(
        "At 3 bits averages along the trunk (LAWA) have a lower quantized loss than learning-rate cooldowns.",
        "paper A, section 5, Figure 7",
        "Quantized loss at the end of each cooldown less that of the latest LAWA on its trunk after no more tokens; of "
        "several windows the one with the lowest full-precision loss.",
        "Once quantized, LAWA had a loss lower than the end of the cooldown by {effect}.",
        "LAWA between the branch and the end of a cooldown, at 3 bits or fewer",
        averages.averaging_beats_decay_at_low_bits,
        NATS,
        most_bits=3,
    ),
    "decay-beats-averaging-at-full-precision": Claim(
        "At full precision averages along the trunk (LAWA) lose to learning-rate cooldowns.",
        "paper A, section 5, Figure 7",
        "Full-precision loss of the latest LAWA on the trunk after no more tokens, less that at the end of each "
        "cooldown; of several windows the one with the lowest full-precision loss.",
        "At full precision LAWA had a loss higher than the end of the cooldown by {effect}.",
        "LAWA between the branch and the end of a cooldown",
        averages.decay_beats_averaging_at_full_precision,
        NATS,
        full_precision=True,
    ),
    "averaging-lowers-error": Claim(
        "Averages along the trunk (LAWA) have a smaller quantization error than learning-rate cooldowns.",
        "paper A, section 5, Figure 7",
        "Error at the end of each cooldown less that of the latest LAWA on its trunk after no more tokens.",
        "LAWA had an error lower than the end of the cooldown by {effect}.",
        "LAWA between the branch and the end of a cooldown",
        averages.averaging_lowers_error,
    ),
    "soup-beats-ingredients": Claim(
        "A model soup has a smaller quantization error than each of its ingredients.",
        "paper A, section 3, Figure 2",
        "Lowest error among a soup's ingredients less the soup's error; mean over soups, of which those that share "
        "a seed are one unit.",
        "The soup's error was lower than that of its best ingredient by {effect}.",
        "soups, with all their ingredients evaluated",
        averages.soup_beats_ingredients,
    ),
    "larger-weight-decay-lowers-error": Claim(
        "A larger weight decay leaves a smaller quantization error (a small effect).",
        "paper A, section 5, Figure 19",
        "Final error with the smallest less that with the largest weight decay, all else equal, among those whose "
        "final full-precision loss is within 5 % of the best.",
        "The largest weight decay had a final error lower by {effect} than the smallest.",
        "two well-trained weight decays or more, all else equal",
        rates.larger_weight_decay_lowers_error,
    ),
    "adamc-equals-adamw": Claim(
        "Correcting the weight decay for the schedule (AdamC) makes no difference to the quantization error.",
        "paper A, Figure 20",
        "Final error under AdamC relative to that under AdamW, less 1.",
        "The final error under AdamC differs from that under AdamW by {effect}.",
        "AdamC and AdamW, all else equal",
        rates.adamc_equals_adamw,
        "percent of AdamW's error",
        "equivalence",
        f"{rates.ADAMC_MARGIN:g} percent",
    ),
    "muon-vs-adamw": Claim(
        "Open question: does training with Muon make a model easier or harder to quantize than with AdamW?",
        "no paper; left open in paper A, appendix H",
        "Final error under Muon less that under AdamW, equal budget, each at its peak rate of lowest full-precision "
        "loss.",
        "At the end of training the error under Muon differs from that under AdamW by {effect}.",
        "Muon and AdamW with equal model, schedule and budget",
        rates.muon_vs_adamw,
        form="open",
    ),
    "muon-vs-adamw-at-equal-loss-after-cooldown": Claim(
        "Open question: and at equal full-precision loss after the cooldown?",
        "no paper; left open in paper A, appendix H",
        "Final error under Muon less that under AdamW, of runs whose final full-precision losses are within "
        f"{LOSS_MARGIN:g} percent of each other, equal budget, each at its peak rate of lowest full-precision loss.",
        "At equal loss, after the cooldown, the error under Muon differs from that under AdamW by {effect}.",
        f"Muon and AdamW with equal model, schedule and budget, and final losses within {LOSS_MARGIN:g} percent",
        rates.muon_vs_adamw_at_equal_loss_after_cooldown,
        form="open",
    ),
    "muon-vs-adamw-at-equal-loss-at-constant-rate": Claim(
        "Open question: and at equal full-precision loss and a constant rate?",
        "no paper; left open in paper A, appendix H",
        "Error under Muon less that under AdamW at equal full-precision loss along runs, checkpoints between warmup "
        "and decay alone, interpolated; mean over the losses both passed.",
        "At equal loss, before the decay, the error under Muon differs from that under AdamW by {effect}.",
        "Muon and AdamW with equal model, schedule and budget whose losses overlap before the decay",
        rates.muon_vs_adamw_at_equal_loss_at_constant_rate,
        form="open",
    ),
}
