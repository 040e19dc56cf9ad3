"""What people look at: a page and metrics over HTTP, a terminal, pictures and reports of recordings."""
