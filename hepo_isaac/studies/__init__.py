"""What the pages in docs/ were measured with: one program a page. They need a checkout, where docs/ is."""
