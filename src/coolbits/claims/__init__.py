"""The papers' claims as statistics over a study's rows, each with a decision rule and an honest verdict."""
