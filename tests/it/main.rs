//! One binary, a module a hazard. A test's name is the sentence that it proves.

mod smoke;
