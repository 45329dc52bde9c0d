"""Programs for whoever develops the engine; none of them is part of it."""
