"""Pages about results that open in any browser, alone: no network, nothing loaded, all text escaped."""
