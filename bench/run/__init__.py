"""One benchmark run: plan, requests, launches, stopping rule, metrics."""
