"""Write docs/recipes.md anew."""

from tests.jobs.recipes.official.page import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
