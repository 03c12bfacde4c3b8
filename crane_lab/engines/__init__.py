"""Engines that score, generate and judge what a model says.

- Scores: `tasks` and `benchmarks` (the testbed's and lm-eval's), `shared_context`
  (log-likelihoods), `multiple_choice` (items and accuracies), `perplexity`.
- Answers: `prompting` (texts and chat templates as tokens), `generation` (questions, prompts,
  Hugging Face), `thoughts` (which are no answer), `vllm_engine` and its `vllm_worker`, `decoding`
  (greedy, for all), `answers` (what is said instead of a right answer).
- Grades: `judging` (what a judge is), `llm_judge` and its `judge_cache`.
"""
