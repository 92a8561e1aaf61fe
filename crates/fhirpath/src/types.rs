/// The FHIR data type of an element, as far as its name or place tells.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type(u8);

/// The R4 data types, each with what it specialises. Those that may stand in a choice are spelled there with
/// a capital first letter: `valueDateTime`.
const TYPES: &[(&str, &str)] = &[
    ("", ""),
    ("boolean", "Element"),
    ("integer", "Element"),
    ("string", "Element"),
    ("decimal", "Element"),
    ("uri", "Element"),
    ("url", "uri"),
    ("canonical", "uri"),
    ("base64Binary", "Element"),
    ("instant", "Element"),
    ("date", "Element"),
    ("dateTime", "Element"),
    ("time", "Element"),
    ("code", "string"),
    ("oid", "uri"),
    ("id", "string"),
    ("markdown", "string"),
    ("unsignedInt", "integer"),
    ("positiveInt", "integer"),
    ("uuid", "uri"),
    ("xhtml", "Element"),
    ("Address", "Element"),
    ("Age", "Quantity"),
    ("Annotation", "Element"),
    ("Attachment", "Element"),
    ("BackboneElement", "Element"),
    ("CodeableConcept", "Element"),
    ("Coding", "Element"),
    ("ContactDetail", "Element"),
    ("ContactPoint", "Element"),
    ("Contributor", "Element"),
    ("Count", "Quantity"),
    ("DataRequirement", "Element"),
    ("Distance", "Quantity"),
    ("Dosage", "BackboneElement"),
    ("Duration", "Quantity"),
    ("Element", ""),
    ("ElementDefinition", "BackboneElement"),
    ("Expression", "Element"),
    ("Extension", "Element"),
    ("HumanName", "Element"),
    ("Identifier", "Element"),
    ("Meta", "Element"),
    ("Money", "Element"),
    ("Narrative", "Element"),
    ("ParameterDefinition", "Element"),
    ("Period", "Element"),
    ("Population", "BackboneElement"),
    ("Quantity", "Element"),
    ("Range", "Element"),
    ("Ratio", "Element"),
    ("Reference", "Element"),
    ("RelatedArtifact", "Element"),
    ("SampledData", "Element"),
    ("Signature", "Element"),
    ("SimpleQuantity", "Quantity"),
    ("Timing", "BackboneElement"),
    ("TriggerDefinition", "Element"),
    ("UsageContext", "Element"),
];

/// The types of FHIRPath itself.
pub(crate) const SYSTEM: &[&str] =
    &["Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time", "Quantity", "Any"];

impl Type {
    pub(crate) const UNKNOWN: Type = Type(0);

    pub(crate) fn named(name: &str) -> Option<Type> {
        let at = TYPES.iter().position(|(known, _)| *known == name && !name.is_empty())?;
        u8::try_from(at).ok().map(Type)
    }

    /// The type that stands behind the name of a choice element: `Quantity` of `valueQuantity`.
    pub(crate) fn of_choice(suffix: &str) -> Option<Type> {
        let (first, rest) = suffix.as_bytes().split_first()?;
        if !first.is_ascii_uppercase() {
            return None;
        }
        // Lengths tell most of them apart.
        let same = |known: &[u8]| {
            known.len() == suffix.len() && known[1..] == *rest && known[0].eq_ignore_ascii_case(first)
        };
        let at = TYPES.iter().position(|(known, _)| same(known.as_bytes()))?;
        u8::try_from(at).ok().map(Type)
    }

    /// What may stand behind the name of a choice element.
    pub(crate) fn choices() -> impl Iterator<Item = String> {
        TYPES.iter().filter(|(name, _)| !name.is_empty()).map(|(name, _)| Type::capital(name))
    }

    /// A type's name as the end of a choice element's.
    pub(crate) fn capital(name: &str) -> String {
        let mut chars = name.chars();
        chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
    }

    pub(crate) fn name(self) -> Option<&'static str> {
        TYPES.get(usize::from(self.0)).map(|(name, _)| *name).filter(|name| !name.is_empty())
    }

    /// Whether it is that type or a specialisation of it.
    pub(crate) fn is(self, name: &str) -> bool {
        let mut of = self;
        while let Some((own, parent)) = TYPES.get(usize::from(of.0)).filter(|(own, _)| !own.is_empty()) {
            if *own == name {
                return true;
            }
            of = Type::named(parent).unwrap_or(Type::UNKNOWN);
        }
        false
    }

    pub(crate) fn is_decimal(self) -> bool {
        self.name() == Some("decimal")
    }
}

/// The resource types of R4, with their abstract parents.
pub(crate) const RESOURCES: &[&str] = &[
    "Resource",
    "DomainResource",
    "Account",
    "ActivityDefinition",
    "AdverseEvent",
    "AllergyIntolerance",
    "Appointment",
    "AppointmentResponse",
    "AuditEvent",
    "Basic",
    "Binary",
    "BiologicallyDerivedProduct",
    "BodyStructure",
    "Bundle",
    "CapabilityStatement",
    "CarePlan",
    "CareTeam",
    "CatalogEntry",
    "ChargeItem",
    "ChargeItemDefinition",
    "Claim",
    "ClaimResponse",
    "ClinicalImpression",
    "CodeSystem",
    "Communication",
    "CommunicationRequest",
    "CompartmentDefinition",
    "Composition",
    "ConceptMap",
    "Condition",
    "Consent",
    "Contract",
    "Coverage",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
    "DetectedIssue",
    "Device",
    "DeviceDefinition",
    "DeviceMetric",
    "DeviceRequest",
    "DeviceUseStatement",
    "DiagnosticReport",
    "DocumentManifest",
    "DocumentReference",
    "EffectEvidenceSynthesis",
    "Encounter",
    "Endpoint",
    "EnrollmentRequest",
    "EnrollmentResponse",
    "EpisodeOfCare",
    "EventDefinition",
    "Evidence",
    "EvidenceVariable",
    "ExampleScenario",
    "ExplanationOfBenefit",
    "FamilyMemberHistory",
    "Flag",
    "Goal",
    "GraphDefinition",
    "Group",
    "GuidanceResponse",
    "HealthcareService",
    "ImagingStudy",
    "Immunization",
    "ImmunizationEvaluation",
    "ImmunizationRecommendation",
    "ImplementationGuide",
    "InsurancePlan",
    "Invoice",
    "Library",
    "Linkage",
    "List",
    "Location",
    "Measure",
    "MeasureReport",
    "Media",
    "Medication",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationKnowledge",
    "MedicationRequest",
    "MedicationStatement",
    "MedicinalProduct",
    "MedicinalProductAuthorization",
    "MedicinalProductContraindication",
    "MedicinalProductIndication",
    "MedicinalProductIngredient",
    "MedicinalProductInteraction",
    "MedicinalProductManufactured",
    "MedicinalProductPackaged",
    "MedicinalProductPharmaceutical",
    "MedicinalProductUndesirableEffect",
    "MessageDefinition",
    "MessageHeader",
    "MolecularSequence",
    "NamingSystem",
    "NutritionOrder",
    "Observation",
    "ObservationDefinition",
    "OperationDefinition",
    "OperationOutcome",
    "Organization",
    "OrganizationAffiliation",
    "Parameters",
    "Patient",
    "PaymentNotice",
    "PaymentReconciliation",
    "Person",
    "PlanDefinition",
    "Practitioner",
    "PractitionerRole",
    "Procedure",
    "Provenance",
    "Questionnaire",
    "QuestionnaireResponse",
    "RelatedPerson",
    "RequestGroup",
    "ResearchDefinition",
    "ResearchElementDefinition",
    "ResearchStudy",
    "ResearchSubject",
    "RiskAssessment",
    "RiskEvidenceSynthesis",
    "Schedule",
    "SearchParameter",
    "ServiceRequest",
    "Slot",
    "Specimen",
    "SpecimenDefinition",
    "StructureDefinition",
    "StructureMap",
    "Subscription",
    "Substance",
    "SubstanceNucleicAcid",
    "SubstancePolymer",
    "SubstanceProtein",
    "SubstanceReferenceInformation",
    "SubstanceSourceMaterial",
    "SubstanceSpecification",
    "SupplyDelivery",
    "SupplyRequest",
    "Task",
    "TerminologyCapabilities",
    "TestReport",
    "TestScript",
    "ValueSet",
    "VerificationResult",
    "VisionPrescription",
];
